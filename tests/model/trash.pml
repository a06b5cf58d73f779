/* A mailbox is deleted while others write to it (daemons/internal/mailstore).
 *
 *   server   commit.go place(), as in commit.pml, with segments of one record; it refuses after the terminal record, and
 *            when w/ is missing or holds floor.max
 *   deleter  trash.go bury(): the terminal record Z is a commit like others; maintain.go retire(): rename to the trash, the
 *            only time that the directory moves; purge(): floor.max, then log/, snap/ and w/ last
 *   tidy     snapshots, floors and removal, without retention
 *
 * Servers may have looked up the mailbox's directories before any of that and go on to use them: in the place, in the trash,
 * and while they are taken apart. A removed directory answers ENOENT or ESTALE.
 *
 * What must hold: what is acknowledged stands in the genuine history, before Z, and was not put into a mailbox that lay in the
 * trash already.
 *
 * Parameters: WRITERS, LOST.
 * Mutants: NO_TERMINAL (moved to the trash without a terminal record), PLAIN_PURGE (no floor.max, any order), FREE_W (a missing w/
 * is taken for one without floors), TAKEN_NO_LOOK (as in commit.pml).
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef LOST
#define LOST 1
#endif
#define Z (WRITERS+1)
#define LAST (WRITERS+2)
#define MAX 255

byte record[LAST+1], bound[LAST+1], truth[LAST+1];
bit  trashed[LAST+1];	/* it came to stand when the mailbox lay in the trash */
byte floor, newest, closedAt;
bit  inTrash, noLog, noSnap, noW;

#define covered(n) (floor >= (n))
#if defined(PLAIN_PURGE) || defined(FREE_W)
#define noFloors(n) (noW || !covered(n))
#define gone (!noW && floor == MAX)
#else
#define noFloors(n) (!noW && !covered(n))
#define gone (noW || floor == MAX)		/* look(): missing, or floor.max */
#endif

#define remembered(r) :: (r <= Z && n <= LAST && ((bound[n%(LAST+1)] >> r) & 1) && record[n%(LAST+1)] != r) -> got = r
inline lookup() {
	if
	:: n > LAST || noLog -> got = 0
	:: else ->
		if
		:: got = record[n]
		remembered(1) remembered(2) remembered(3)
#if WRITERS > 2
		remembered(4)
#endif
		fi
	fi
}

inline acknowledge() {
	printf("%d is told: record %d stands at %d\n", _pid, rec, n);
	assert(truth[n] == rec);
	assert(closedAt == 0 || n <= closedAt);
	assert(!trashed[n])
}

#define PUT    1
#define LOOK   2
#define TAKEN  3
#define LIST   4
#define RELOAD 5

inline search() {
	if
	:: n <= known && truth[n] == rec -> acknowledge(); break
	:: else -> n = known+1; lost = 0; at = PUT
	fi
}

proctype server(byte rec) {
	byte known, start, n, at, got;
	bit garbage, closed, lost;
	atomic { n = 1; at = PUT }
	do
	:: atomic { at == PUT ->
		if
		:: closed || n > LAST || noLog -> goto refused	/* no log/: a segment cannot be made either */
		:: !closed && n <= LAST && !noLog && record[n] != 0 -> at = TAKEN; start = known
		:: !closed && n <= LAST && !noLog && record[n] == 0 ->
			record[n] = rec; bound[n] = bound[n] | (1 << rec);
			printf("%d makes %d: record %d, genuine %d\n", _pid, n, rec, truth[n] == 0);
			if
			:: truth[n] == 0 ->
				truth[n] = rec; trashed[n] = inTrash;
				if
				:: rec == Z -> closedAt = n
				:: else
				fi
			:: else
			fi;
			if
			:: at = LOOK
			:: !lost && LOST -> lost = 1
			fi
		fi }
	:: atomic { at == LOOK ->
		if
		:: gone -> goto refused
		:: !gone && !noFloors(n) -> at = RELOAD
		:: !gone && noFloors(n) -> known = n; acknowledge(); break
		fi }
	:: atomic { at == TAKEN ->	/* advance(): fold ... */
		lookup();
		if
		:: got == 0 -> at = LIST
		:: else ->
			known = n; garbage = (garbage || got != truth[n]);
			closed = (closed || got == Z);
#ifdef TAKEN_NO_LOOK
			if
			:: got == rec -> known = n-1; closed = 0; at = LOOK
			:: else -> n++; at = PUT
			fi
#else
			at = LIST
#endif
		fi;
		got = 0 }
	:: atomic { at == LIST ->	/* ... and the look at w/ */
		if
		:: gone -> goto refused
		:: !gone && !noFloors(start+1) -> at = RELOAD
		:: !gone && noFloors(start+1) -> assert(!garbage); start = 0; search()
		fi }
	:: atomic { at == RELOAD ->
		if
		:: noSnap -> goto refused
		:: else ->
			known = newest; garbage = 0; start = 0;
			closed = (closedAt != 0 && closedAt <= newest);
			search()
		fi }
	od;
refused:
	atomic {
		if
		:: rec == Z && closedAt != 0 -> run purger()
		:: else
		fi }
}

proctype purger() {
	atomic { inTrash = 1; printf("to the trash\n") }
#ifndef PLAIN_PURGE
	atomic { floor = MAX; printf("floor.max\n") }
#endif
	do
	:: atomic { record[1] != 0 -> record[1] = 0 }
	:: atomic { record[2] != 0 -> record[2] = 0 }
	:: atomic { record[3] != 0 -> record[3] = 0 }
	:: atomic { LAST > 3 && record[LAST] != 0 -> record[LAST] = 0 }
	:: atomic { LAST > 4 && record[LAST-1] != 0 -> record[LAST-1] = 0 }
#ifdef PLAIN_PURGE
	:: atomic { !noSnap -> noSnap = 1 }
	:: atomic { !noW -> noW = 1 }
#endif
#ifdef FREE_W
	:: atomic { !noW -> noW = 1 }
#endif
	:: atomic { record[1] == 0 && record[2] == 0 && record[3] == 0 && record[LAST] == 0 && record[LAST-1] == 0 -> noLog = 1; break }
	od;
	atomic { noSnap = 1 }
	atomic { noW = 1; printf("purged\n") }
}

proctype tidy() {
	byte known, start, got, n, at;
	bit garbage;
	do
	:: atomic { at == 0 -> n = known+1; lookup(); n = 0;
		if
		:: got == 0 -> at = 1
		:: else -> known++; garbage = (garbage || got != truth[known]); got = 0
		fi }
	:: atomic { at == 1 ->
		if
		:: gone || noW -> break
		:: !gone && !noW && covered(start+1) -> at = 2
		:: !gone && !noW && !covered(start+1) -> assert(!garbage); start = known; at = 3
		fi }
	:: atomic { at == 2 ->
		if
		:: noSnap -> break
		:: else -> known = newest; start = known; garbage = 0; at = 0
		fi }
	:: atomic { at == 3 ->
		if
		:: !noSnap && known > newest -> newest = known
		:: else
		fi;
		at = 4 }
	:: atomic { at == 4 ->
		if
		:: known > floor -> floor = known
		:: else
		fi;
		at = 5 }
	:: atomic { at == 5 && known >= 1 && record[1] != 0 -> record[1] = 0 }
	:: atomic { at == 5 && known >= 2 && record[2] != 0 -> record[2] = 0 }
	:: atomic { at == 5 && known >= 3 && record[3] != 0 -> record[3] = 0 }
	:: atomic { at == 5 && LAST > 3 && known >= 4 && record[4%(LAST+1)] != 0 -> record[4%(LAST+1)] = 0 }
	:: atomic { at == 5 -> at = 0 }
	od
}

init {
	atomic {
		byte i = 1;
		do :: i <= WRITERS -> run server(i); i++ :: else -> break od;
		i = 0;
#ifdef NO_TERMINAL
		run purger();
#else
		run server(Z);
#endif
		run tidy()
	}
}
