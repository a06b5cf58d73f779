/* Collection of message files that no record names, against a writer that takes as long as it likes between writing its file and
 * committing it (daemons/internal/mailstore).
 *
 *   writer     mailbox.go Append(): the file, the record, and a look at the file if the commit took more than a day
 *              (recheckAfter): it is written again if a collector has taken it
 *   collector  collect.go collect(): reads the log; moves what is not named to a name of its own in tmp/; reads the log
 *              again; moves it back if it is named now, removes it otherwise. Claims of others are taken over
 *   reader     after the acknowledgement the file is there, or is going to be put back by whoever looks next
 *
 * Ages play no part: a file of any age may be about to be named. Collectors may stop anywhere for ever, as long as one is left.
 *
 * What must hold at the end: an acknowledged message has its file, in its place once the last collector has been through.
 *
 * Parameter: ROUNDS (of each collector).
 * Mutants: NO_CLAIM (a file that is not named is removed at once), NO_SECOND_READ (a claim is removed without another look at the
 * log), NO_RECHECK (the writer does not look at its file again).
 */
#ifndef ROUNDS
#define ROUNDS 3
#endif

bit file;		/* m/<k>/<msgid> */
bit claim[2];		/* tmp/c.<nonce of the collector>... */
bit named;		/* a record names it */
bit told;
byte alive = 3;

proctype writer() {
	file = 1;
	named = 1;		/* committed, and verified */
#ifndef NO_RECHECK
	if
	:: atomic { !file -> skip }; file = 1
	:: atomic { file -> skip }
	fi;
#endif
	told = 1;
	alive--
}

inline judge(me) {
#ifdef NO_SECOND_READ
	if
	:: atomic { claim[me] -> claim[me] = 0 }
	:: atomic { !claim[me] -> skip }
	fi
#else
	if
	:: atomic { claim[me] && named -> skip };
	   atomic { if :: claim[me] -> claim[me] = 0; file = 1 :: else fi }
	:: atomic { claim[me] && !named -> skip };
	   atomic { claim[me] = 0 }
	:: atomic { !claim[me] -> skip }
	fi
#endif
}

proctype collector(bit me; bit mortal) {
	byte r;
	do
	:: r < ROUNDS ->
		r++;
#ifdef NO_CLAIM
		if
		:: atomic { file && !named -> skip }; file = 0
		:: skip
		fi
#else
		if
		:: atomic { file && !named -> skip };		/* newClaims() */
		   atomic { if :: file -> file = 0; claim[me] = 1 :: else fi }
		:: atomic { claim[1-me] -> skip };		/* oldClaims() */
		   atomic { if :: claim[1-me] -> claim[1-me] = 0; claim[me] = 1 :: else fi }
		:: skip
		fi;
		if
		:: mortal -> break
		:: skip
		fi;
		judge(me)
#endif
	:: else -> break
	od;
	alive--
}

active proctype onlooker() {
	(alive == 0);
	assert(!told || file || claim[0] || claim[1]);
	/* somebody comes by once more */
	atomic {
		if :: claim[0] && named -> claim[0] = 0; file = 1 :: else fi;
		if :: claim[1] && named -> claim[1] = 0; file = 1 :: else fi;
		assert(!told || file)
	}
}

init { atomic { run writer(); run collector(0, 1); run collector(1, 0) } }
