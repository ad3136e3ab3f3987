/* Which files stand for a state of a table, in a store without locks, such as S3.
 *
 * A state has files of its own (item 0). Two writers each write others in their stead (items 1 and
 * 2). What shall stand is decided in the database, then the record in the store is changed, which
 * readers look at. A writer is known by its session, which the server may end at any moment; it may
 * die anywhere, and then its last request lands whenever it likes, or never. A collector deletes
 * what neither the record nor a decision that is not carried out yet names.
 * Each atomic step is one that the real thing makes atomic: one statement or transaction in the
 * database, one request to the store.
 *
 * Promised: the files that the record names are there.
 *
 * Each of these, defined, leaves out one part of the protocol, and the checker finds the loss:
 *   SWAP_ALONE  nothing is decided, the record is changed if it is what the writer found;
 *   NO_SESSION  a writer decides in whatever session;  NO_MATCH  the record is changed whatever it
 *   is by then;  NO_CATCH_UP  a writer decides while an earlier decision is not carried out;
 *   RECORD_ALONE, DECISION_ALONE  the collector counts the files of one of the two only
 */

#define ITEMS 3
#define NOBODY 100
#define NONE 3

byte generation = 0;
bool there[ITEMS];
byte condemned[ITEMS];                /* the generation; 0: not condemned */

byte record = 0;                      /* what readers look at */
byte decided = NONE;                  /* what shall stand, */
byte upon = NONE;                     /* in the stead of what the record named then */

byte registered[2];                   /* the lock that a session holds; NOBODY: none */
bool has_session[2];

#define SAFE assert(there[record])

proctype Writer(byte me) {
  byte noted, found, last, last_upon, seen; byte mine = 1 + me;
  noted = generation;
  atomic { registered[me] = noted; has_session[me] = true };
begin:
  found = record;
  there[mine] = true;
  d_step { last = decided; last_upon = upon };
  seen = record;
#ifndef SWAP_ALONE
#ifndef NO_CATCH_UP
  if
  :: last != NONE && last_upon == seen ->   /* somebody died: what was decided is carried out */
    atomic { if :: record == seen -> record = last; SAFE :: else fi };
    goto begin                        /* and does it again */
  :: else
  fi;
#endif
#endif
  if :: seen != found -> goto ended :: else fi;
#ifndef SWAP_ALONE
decide:
  if
#ifdef NO_SESSION
  :: atomic { true ->
#else
  :: atomic { has_session[me] ->
#endif
      if :: decided == last -> decided = mine; upon = seen :: else -> goto ended fi }
#ifndef NO_SESSION
  :: !has_session[me] ->              /* it learns that its session has ended */
    atomic { registered[me] = noted; has_session[me] = true };
    if :: generation > noted -> goto ended :: else fi;
    goto decide
#endif
  :: true -> goto ended               /* it fails, or is killed */
  fi;
#endif
  if
  :: true -> skip
  :: true -> atomic { registered[me] = NOBODY; has_session[me] = false }   /* killed meanwhile */
  fi;
#ifdef NO_MATCH
  atomic { if :: true -> record = mine; SAFE :: true -> skip fi };
#else
  atomic { if :: record == seen -> record = mine; SAFE :: true -> skip fi };
#endif
ended:
  atomic {
    registered[me] = NOBODY; has_session[me] = false;
    noted = 0; found = 0; last = 0; last_upon = 0; seen = 0
  }
}

proctype Server() {                   /* ends sessions of writers */
  byte times;
  do
  :: atomic { times < 2 && has_session[0] -> registered[0] = NOBODY; has_session[0] = false; times++ }
  :: atomic { times < 2 && has_session[1] -> registered[1] = NOBODY; has_session[1] = false; times++ }
  :: break
  od
}

#ifdef RECORD_ALONE
#define NAMED(one) (one == named)
#else
#ifdef DECISION_ALONE
#define NAMED(one) (one == (shall == NONE -> named : shall))
#else
#define NAMED(one) (one == named || (one == shall && shall_upon == named))
#endif
#endif

proctype Collector() {
  byte oldest, round, i, shall, shall_upon, named;
  do
  :: round < 3 ->
    oldest = (registered[0] < registered[1] -> registered[0] : registered[1]);
    d_step { shall = decided; shall_upon = upon };
    named = record;
    i = 0;
    do
    :: atomic { i < ITEMS && (!there[i] || NAMED(i)) -> condemned[i] = 0; i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && condemned[i] == 0 ->
        generation++; condemned[i] = generation; i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && oldest < condemned[i] -> i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && condemned[i] > 0 && oldest >= condemned[i] ->
        there[i] = false; condemned[i] = 0; SAFE; i++ }
    :: i == ITEMS -> break
    od;
    atomic { i = 0; oldest = 0; shall = 0; shall_upon = 0; named = 0; round++ }
  :: else -> break
  od
}

init {
  atomic {
    registered[0] = NOBODY; registered[1] = NOBODY;
    there[0] = true;
    run Writer(0); run Writer(1); run Server(); run Collector()
  }
}
