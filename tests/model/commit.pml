/* The log of one mailbox: commit, snapshots, floors, compaction and reading (daemons/internal/mailstore).
 *
 * What is modelled, and where it is in the code:
 *
 *   server       commit.go place(): put, look, relook, and what is done about EEXIST and ENOENT
 *   advance      journal.go advance(): read on, list w/, throw away what a floor covers
 *   reload       load.go reload(): begin at a snapshot, not always at the newest
 *   tidy         compact.go: checkpoint(), then compact() and cut(); several of them may run
 *   reader       mailbox.go State(): a look that must find whatever was acknowledged before it began
 *
 * A step is one call to the file server. Calls are atomic; between two of them anything may happen. A process may stop
 * anywhere for ever, which is a crash, or for long, which is a stalled server: both are interleavings like others. The reply
 * to a symlink may get lost once a commit, after which the same call is carried out again.
 *
 * Clients' caches: a name may be answered with any record that was ever bound to it, as long as one likes. "There is no such
 * name" is answered only when it is true: that is what lookupcache=positive is for. Listings are opened anew and true.
 *
 * What must hold (assertions): the log is dense; a record stands in it once; what is acknowledged at N is what everybody
 * finds at N; what the Read rule lets pass is the genuine history and holds all that was acknowledged before; a
 * snapshot is written from genuine history only.
 *
 * Parameters: WRITERS, COMMITS (each), COMPACTORS, READERS, SEG (records per segment; 128 in the code), LOST (replies),
 * TIMED (retention, ages and the shortcut of the Read rule; otherwise the retention is nothing and each read lists w/).
 *
 * Mutants, each of which must fail:
 *   NO_FENCE        no floors are looked at
 *   LIST_FIRST      w/ is listed before the symlink and not after it
 *   LATE_FLOOR      the first unlink comes before the floor
 *   CHECK_PREVIOUS  instead of a listing: is record N-1 still there?
 *   TAKEN_NO_LOOK   EEXIST: fold what is there by itself, without the look at w/
 *   MISSING_NO_LOOK ENOENT under a floor: commit again without looking for the own nonce
 *   UNVERIFIED      snapshots of a fold that was not held against w/
 *   SHORT_MEMORY    snapshots know the nonces of their last segment only
 *   LONG_SHORTCUT   TIMED: "nothing new" is believed for longer than the retention
 *   EARLY_AGE       TIMED: how old the last listing is, is taken before the look that finds nothing new and may be held up
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef COMMITS
#define COMMITS 1
#endif
#ifndef COMPACTORS
#define COMPACTORS 1
#endif
#ifndef READERS
#define READERS 0
#endif
#ifndef SEG
#define SEG 1
#endif
#ifndef LOST
#define LOST 1
#endif
#ifndef TICKS
#define TICKS 6
#endif

#define RECORDS (WRITERS*COMMITS)
#define LAST    (RECORDS+1)		/* room for one name that is used twice */
#define SEGMENTS ((LAST+SEG-1)/SEG)
#define segment(n) (((n)-1)/SEG)
#define covered(n) (floor > segment(n))

/* The file server. */
byte record[LAST+1];	/* log/<k>/<N>: 0 absent, else the record's nonce */
bit  made[SEGMENTS];	/* log/<k> is there */
bit  dropped[SEGMENTS];	/* it was removed once: an old handle of it is stale */
byte floor;		/* the highest w/floor.<k>, plus 1 */
byte newest, older;	/* complete snapshots, by N */

/* The clients' memory. */
byte bound[LAST+1];	/* bit r: record r was bound to this name at some time */

/* What an onlooker knows who sees everything. */
byte truth[LAST+1];	/* the genuine history: the first record under each name */
bit  placed[RECORDS+1];
byte promised;		/* highest N that anybody was told to stand */

#ifdef TIMED
/* In quarters of the retention R. What takes less than R/2 spans two of them at most; what takes R spans four at least. */
byte now, newestAt, olderAt;
#define aged(t) (now >= (t)+4)
#ifdef LONG_SHORTCUT
#define young(t) (now <= (t)+6)
#else
#define young(t) (now <= (t)+2)
#endif
#ifdef EARLY_AGE
#define recent(t) (sawAt <= (t)+2)
#else
#define recent(t) young(t)
#endif
active proctype clock() { do :: now < TICKS -> now++ :: else -> break od }
#endif

#define remembered(r) :: (r <= RECORDS && known < LAST && ((bound[(known+1)%(LAST+1)] >> r) & 1) && record[(known+1)%(LAST+1)] != r) -> got = r

/* journal.go readNext(): what does the client say is at known+1? */
inline lookup() {
	if
	:: known >= LAST -> got = 0
	:: else ->
		if
		:: got = record[known+1]
		remembered(1) remembered(2) remembered(3)
#if RECORDS > 3
		remembered(4)
#endif
#if RECORDS > 4
		remembered(5) remembered(6)
#endif
		fi
	fi
}

/* foldRecord() */
inline fold() {
	known++;
	garbage = (garbage || got != truth[known]);
	got = 0
}

/* load.go reload(): list snap/, take what can be read. The newest may be torn, or continue one that is gone. */
inline reload() {
	if
	:: known = newest
	:: older < newest -> known = older
	fi;
	base = known; start = known; garbage = 0;
#ifdef TIMED
	looked = 0; lookedAt = 0;
#endif
	printf("%d reloads at %d\n", _pid, known)
}

inline verified() {
	assert(!garbage);			/* nothing but genuine history is shown */
	assert(known >= owed);			/* with all that was acknowledged before the first look */
	owed = 0; step = 0; start = known
}

#define FOLDING 1
#define LISTING 2
#define AGAIN   3
#define ASKED   4

#ifdef TIMED
#define SHORTCUT(x) :: x && start == known && looked && recent(lookedAt) -> sawAt = 0; verified(); break
#define NO_SHORTCUT(x) !(x && start == known && looked && recent(lookedAt))
#else
#define SHORTCUT(x)
#define NO_SHORTCUT(x) 1
#endif

/* journal.go advance(). polls: what was acknowledged before must be found; TIMED: a listing of w/ that is young enough
 * does. In the code whoever reads may use that shortcut; here readers do, which keeps the model small. */
inline advance(polls) {
	do
#ifdef TIMED
	:: atomic { polls && step < LISTING ->	/* a reader asks; the answer may be long in coming */
		if
		:: step == 0 -> owed = promised
		:: else
		fi;
		sawAt = now; step = ASKED }
	:: atomic { step == ASKED || (!polls && step < LISTING) ->
#else
	:: atomic { step < LISTING ->
		if
		:: polls && step == 0 -> owed = promised
		:: else
		fi;
#endif
		lookup();
		if
		:: got != 0 ->
			fold(); step = FOLDING;
#ifdef TIMED
			looked = 0; lookedAt = 0
#endif
		:: else ->
#ifdef NO_FENCE
			verified(); break
#else
			step = LISTING;
			if
			SHORTCUT(polls)
			:: NO_SHORTCUT(polls)
			fi
#endif
		fi }
	:: atomic { step == LISTING ->		/* look(): a listing of w/, opened anew */
		printf("%d lists w/: floor %d\n", _pid, floor);
		if
		:: covered(start+1) -> step = AGAIN
		:: else ->
#ifdef TIMED
			if
			:: polls -> looked = 1; lookedAt = sawAt; sawAt = 0
			:: else
			fi;
#endif
			verified(); break
		fi }
	:: atomic { step == AGAIN -> reload(); step = FOLDING }
	od
}

/* A record has come to be under name n. */
inline symlink() {
	printf("%d makes %d: record %d, genuine %d\n", _pid, n, rec, truth[n] == 0);
	record[n] = rec;
	bound[n] = bound[n] | (1 << rec);
	if
	:: truth[n] == 0 ->
		assert(n == 1 || truth[n-1] != 0);	/* dense */
		assert(!placed[rec]);			/* once */
		truth[n] = rec; placed[rec] = 1
	:: else					/* the name of a compacted record: nobody will count it */
	fi
}

/* marks.has(): snapshots keep, for each server, its last nonce and N. */
#ifdef SHORT_MEMORY
#define mine (n <= known && truth[n] == rec && (n > base || n+SEG > base))
#else
#define mine (n <= known && truth[n] == rec)
#endif

inline acknowledge() {
	printf("%d is told: record %d stands at %d\n", _pid, rec, n);
	assert(truth[n] == rec);		/* for everybody, for ever */
	if
	:: n > promised -> promised = n
	:: else
	fi;
	c++; n = 0; rec = 0; base = 0; lost = 0; at = 0
}

#define LISTED_BEFORE 1
#define PUT     2
#define LOOK    3
#define TAKEN   4
#define MISSING 5
#define MKDIR   6
#define RELOAD  7
#define SEARCH  8
#define BLIND   9

#ifdef LIST_FIRST
#define FIRST LISTED_BEFORE
#else
#define FIRST PUT
#endif

inline again() { n = known+1; lost = 0; base = 0; at = FIRST }

proctype server(byte id) {
	byte known, start, step, got, base, owed, n, rec, at, c;
	bit garbage, lost, before;
#ifdef TIMED
	bit looked; byte lookedAt, sawAt;
#endif
	do
	:: c < COMMITS ->
		if
		:: advance(0)		/* somebody asked for the state */
		:: skip			/* or nobody did, for however long */
		fi;
		atomic { rec = id*COMMITS+c+1; again() }
		do
		:: atomic { at == LISTED_BEFORE -> before = covered(n); at = PUT }
		:: atomic { at == PUT ->
			if
			:: n > LAST -> goto over
			:: n <= LAST && (made[segment(n)] == 0 || dropped[segment(n)]) -> at = MISSING
			:: n <= LAST && made[segment(n)] && record[n] != 0 -> at = TAKEN
			:: n <= LAST && made[segment(n)] && record[n] == 0 ->
				symlink();
				if
				:: at = LOOK
				:: !lost && LOST -> lost = 1; printf("%d: the reply is lost\n", _pid)
				fi
			fi }
		:: atomic { at == LOOK ->
			printf("%d lists w/ after its symlink: floor %d\n", _pid, floor);
#if defined(NO_FENCE)
			known = n; start = n; acknowledge(); break
#elif defined(CHECK_PREVIOUS)
			if
			:: n == 1 || record[n-1] != 0 || bound[n-1] != 0 -> known = n; start = n; acknowledge(); break
			:: n > 1 && record[n-1] == 0 -> at = RELOAD
			fi
#else
			if
#ifdef LIST_FIRST
			:: !before -> known = n; start = n; acknowledge(); break
			:: before -> before = 0; at = RELOAD
#else
			:: !covered(n) ->
				known = n; start = n; acknowledge(); break
			:: covered(n) -> at = RELOAD
#endif
			fi
#endif
			}
		:: atomic { at == RELOAD -> reload(); at = SEARCH }
		:: at == SEARCH ->	/* relook(), or advance() after EEXIST */
			advance(0);
			atomic {
				if
				:: mine -> acknowledge(); break
				:: else -> again()
				fi }
#ifdef TAKEN_NO_LOOK
		:: atomic { at == TAKEN ->
			known = n-1; lookup();
			if
			:: got == rec -> got = 0; at = LOOK
			:: got != 0 && got != rec -> fold(); again()
			:: got == 0 -> at = PUT
			fi }
#else
		:: atomic { at == TAKEN -> at = SEARCH }
#endif
		:: atomic { at == MISSING ->
			if
#ifdef MISSING_NO_LOOK
			:: covered(n) -> at = BLIND
#else
			:: covered(n) -> at = RELOAD
#endif
			:: !covered(n) -> at = MKDIR
			fi }
		:: atomic { at == BLIND -> reload(); again() }
		:: atomic { at == MKDIR -> made[segment(n)] = 1; at = PUT }
		od
	:: else -> break
	od;
over:	skip
}

proctype reader() {
	byte known, start, step, got, base, owed;
	bit garbage;
#ifdef TIMED
	bit looked; byte lookedAt, sawAt;
#endif
	do
	:: advance(1)
	od
}

#define unlink(i) :: atomic { i <= LAST && i <= cut*SEG && record[i] != 0 -> record[i] = 0; printf("%d unlinks %d\n", _pid, i) }
#define left(k, i) (k*SEG+i > LAST || i > SEG || record[(k*SEG+i)%(LAST+1)] == 0)
#define rmdir(k) :: atomic { k < SEGMENTS && k < cut && made[k%SEGMENTS] && left(k,1) && left(k,2) && left(k,3) -> made[k%SEGMENTS] = 0; dropped[k%SEGMENTS] = 1 }

proctype tidy(bit once) {
	byte known, start, step, got, base, owed, cut;
	bit garbage;
#ifdef TIMED
	bit looked; byte lookedAt, sawAt;
#endif
	do
	::
#ifdef UNVERIFIED
		do
		:: atomic { lookup();
			if
			:: got != 0 -> fold()
			:: else -> break
			fi }
		od;
		start = known;
#else
		advance(READERS > 0);
#endif
		atomic {		/* checkpoint(): link(2) never replaces */
			assert(!garbage);
			base = 0;
			if
			:: known > newest ->
				older = newest; newest = known;
#ifdef TIMED
				olderAt = newestAt; newestAt = now;
#endif
				printf("%d writes snapshot %d\n", _pid, known)
			:: else
			fi
		}
		atomic {		/* compact(): one of the snapshots, if it has stood for the retention */
			if
#ifdef TIMED
			:: aged(newestAt) -> cut = newest/SEG
			:: aged(olderAt) -> cut = older/SEG
			:: cut = 0
#else
			:: cut = newest/SEG
			:: older != newest -> cut = older/SEG
#endif
			fi
		}
		if
		:: cut > 0 ->
#ifdef LATE_FLOOR
			if
			unlink(1) unlink(2) unlink(3) unlink(4)
			:: skip
			fi;
#endif
			atomic { if :: cut > floor -> floor = cut; printf("%d makes floor.%d\n", _pid, cut-1) :: else fi }
			do
			unlink(1) unlink(2) unlink(3)
#if RECORDS > 2
			unlink(4)
#endif
#if RECORDS > 3
			unlink(5)
#endif
#if RECORDS > 4
			unlink(6) unlink(7)
#endif
			rmdir(0) rmdir(1) rmdir(2) rmdir(3) rmdir(4)
			:: atomic { cut = 0; break }
			od
		:: else
		fi;
		if
		:: once -> break
		:: else
		fi
	od
}

init {
	atomic {
		byte i = 0;
		made[0] = 1;
		do :: i < WRITERS -> run server(i); i++ :: else -> break od;
		i = 0;
		do :: i < COMPACTORS -> run tidy(i > 0); i++ :: else -> break od;
		i = 0;
		do :: i < READERS -> run reader(); i++ :: else -> break od;
		i = 0
	}
}
