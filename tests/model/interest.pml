/* Interest and hints: whoever waits at a mailbox gets to know of every commit (daemons/internal/mailstore).
 *
 *   committer  commit.go: put, look (the listing of w/), tell: a hint to every entry in that listing
 *   watcher    watch.go register(): an entry w/<nonce>, never the same twice; then State(), the whole Read rule; then it
 *              waits. It may die and come back under a new boot, and removes the entries of its earlier boots
 *   janitor    maintain.go: entries that are older than a living server lets them get
 *   renewal    watch.go renew(): a new entry first, then the old one goes
 *   tidy       snapshots, floors and removal, as in commit.pml, with segments of one record and no retention
 *
 * No hint gets lost here: that is what the slow re-check is for. A committer that dies between its symlink and its hint is
 * such a loss, so committers do not die here.
 *
 * What must hold, when nothing moves any more: a living watcher that waits knows the last record.
 *
 * Parameters: WATCHERS, COMMITTERS, COMMITS (each).
 * Mutants: REGISTER_LATE (reads, then registers), NO_RULE (reads without the look at w/), SAME_NAME (one name for all boots of
 * a server), LIST_FIRST (committers list before the symlink), JANITOR_BY_AGE (removes entries of the living), RENEW_LATE
 * (renewal removes before it makes).
 */
#ifndef WATCHERS
#define WATCHERS 1
#endif
#ifndef COMMITTERS
#define COMMITTERS 2
#endif
#ifndef COMMITS
#define COMMITS 1
#endif
#define LAST (COMMITTERS*COMMITS)
#define BOOTS 2

byte tail, newest, floor;
bit  removed[LAST+2];	/* record N has been compacted */
byte entry[WATCHERS];	/* w/: bit g is the entry of boot g/2, first or renewed */
byte boot[WATCHERS];
bit  renewed[WATCHERS];
byte known[WATCHERS];
bit  registered[WATCHERS], waits[WATCHERS], hinted[WATCHERS], old[WATCHERS];

#ifdef SAME_NAME
#define name(b, r) 0
#define reaches(w) (seen[w] != 0)
#else
#define name(b, r) (2*(b)+(r))
#define reaches(w) ((seen[w] >> (2*boot[w])) & 3)	/* an entry leads to the run that made it */
#endif
#define add(w, e)  entry[w] = entry[w] | (1 << (e))
#define drop(w, e) entry[w] = entry[w] & (255 - (1 << (e)))

proctype committer(byte id) {
	byte c, w;
	byte seen[WATCHERS];
	do
	:: c < COMMITS ->
#ifdef LIST_FIRST
		atomic { do :: w < WATCHERS -> seen[w] = entry[w]; w++ :: else -> w = 0; break od }
#endif
		atomic { tail++; printf("committer %d makes %d\n", id, tail) }
#ifndef LIST_FIRST
		atomic { do :: w < WATCHERS -> seen[w] = entry[w]; w++ :: else -> w = 0; break od }
#endif
		do
		:: atomic { w < WATCHERS ->
			if
			:: reaches(w) -> hinted[w] = 1; printf("committer %d hints %d\n", id, w)
			:: else
			fi;
			seen[w] = 0; w++ }
		:: atomic { w == WATCHERS -> w = 0; break }
		od;
		c++
	:: else -> break
	od
}

/* The Read rule from known on. */
inline readOn() {
	do
	:: atomic { known[w] < tail && !removed[known[w]+1] -> known[w]++ }
	:: atomic { known[w] >= tail || removed[known[w]+1] ->
		skip;
#ifdef NO_RULE
		break
#endif
	   }
		if
		:: atomic { floor > known[w] -> known[w] = newest }
		:: atomic { floor <= known[w] -> break }
		fi
	od
}

proctype watcher(byte w) {
	bit mortal;
	if :: mortal = 1 :: mortal = 0 fi;
	if :: renewed[w] = 1 :: renewed[w] = 0 fi;	/* 1: it will not come to that */
start:
	atomic { known[w] = newest; hinted[w] = 0; registered[w] = 0; waits[w] = 0 }
#ifdef REGISTER_LATE
	readOn();
#endif
	atomic { add(w, name(boot[w], 0)); registered[w] = 1; old[w] = (boot[w] > 0); printf("watcher %d registers\n", w) }
	if
#ifndef SAME_NAME
	:: boot[w] > 0 ->	/* register(): entries of former runs, found in its listing */
		atomic { drop(w, name(0, 0)) }
		atomic { drop(w, name(0, 1)) }
#endif
	:: else
	fi;
#ifndef REGISTER_LATE
	readOn();
#endif
	do
	:: atomic { waits[w] = 1;
		if
		:: hinted[w] -> hinted[w] = 0; waits[w] = 0
		:: boot[w] == 0 && mortal -> waits[w] = 0; registered[w] = 0; boot[w] = 1; printf("watcher %d dies\n", w); goto start
		:: !renewed[w] -> renewed[w] = 1; waits[w] = 0; goto renew
		fi };
		readOn()
	od;
renew:
	/* renew(): a day is almost over */
#ifdef RENEW_LATE
	atomic { drop(w, name(boot[w], 0)) }
	atomic { add(w, name(boot[w], 1)) }
#else
	atomic { add(w, name(boot[w], 1)) }
	atomic { drop(w, name(boot[w], 0)) }
#endif
	do
	:: atomic { waits[w] = 1;
		if
		:: hinted[w] -> hinted[w] = 0; waits[w] = 0
		:: boot[w] == 0 && mortal -> waits[w] = 0; registered[w] = 0; boot[w] = 1; printf("watcher %d dies\n", w); goto start
		fi };
		readOn()
	od
}

/* Anybody may remove an entry that is old: it is never one that a living server relies on. Between the look at its age and
 * its removal there may be any time. */
#if defined(JANITOR_BY_AGE)
#define stale(w) (entry[w] != 0)
#elif defined(SAME_NAME)
#define stale(w) (entry[w] != 0 && boot[w] > 0 && !registered[w])
#else
#define stale(w) (boot[w] > 0 && (entry[w] & 3))
#endif
proctype janitor() {
	byte w;
	do
	:: atomic {
		if
		:: stale(0) -> w = 0
		:: stale(WATCHERS-1) -> w = WATCHERS-1
		fi }
		if
#ifdef JANITOR_BY_AGE
		:: atomic { drop(w, name(boot[w], 0)); w = 0 }
		:: atomic { drop(w, name(boot[w], 1)); w = 0 }
#else
		:: atomic { drop(w, name(0, 0)); w = 0 }
		:: atomic { drop(w, name(0, 1)); w = 0 }
#endif
		fi
	od
}

proctype tidy() {
	do
	:: atomic { newest < tail -> newest = tail }
	:: atomic { floor < newest -> floor = newest }
	:: atomic { floor >= 1 && !removed[1] -> removed[1] = 1 }
	:: atomic { LAST >= 2 && floor >= 2 && !removed[2] -> removed[2] = 1 }
	:: atomic { LAST >= 3 && floor >= 3 && !removed[3%(LAST+2)] -> removed[3%(LAST+2)] = 1 }
	:: atomic { LAST >= 4 && floor >= 4 && !removed[4%(LAST+2)] -> removed[4%(LAST+2)] = 1 }
	od
}

/* timeout: nobody can move any more. */
active proctype onlooker() {
	byte w;
	timeout;
	atomic {
		do
		:: w < WATCHERS -> assert(!(registered[w] && waits[w] && known[w] < tail)); w++
		:: else -> break
		od }
}

init {
	atomic {
		byte i;
		do :: i < WATCHERS -> run watcher(i); i++ :: else -> break od;
		i = 0;
		do :: i < COMMITTERS -> run committer(i); i++ :: else -> break od;
		run tidy();
		run janitor();
		i = 0
	}
}
