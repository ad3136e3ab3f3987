/* Deletion from a store without locks, such as S3, against writers whose sessions may end.
 *
 * A blob may have several copies, each under a name that is never used again; writer 0 also writes
 * a file of its own. Items 0 to 2 are the copies, 3 is the file. A writer is known by its
 * session in the database, which the server may end at any moment without the writer's knowing; it
 * learns of it when it publishes. A collector's session may end, too, after it decided to delete:
 * then another collector may begin, and the request of the first lands whenever it likes.
 * Each atomic step is one that the real thing makes atomic: one statement or transaction in the
 * database, one request to the store.
 *
 * Promised: whenever a commit names the blob, a copy of it is there; and the file, if it is named.
 *
 * Each of these, defined, leaves out one part of the protocol, and the checker finds the loss:
 *   NO_SESSION  a writer publishes in whatever session;  NO_CHECK  it goes on in a new one, whatever
 *   was condemned meanwhile;  CHECK_FIRST  it looks for that before it is registered again;
 *   SAME_NAME  a blob is written again under its name, and struck off;
 *   LOOK_FIRST  a writer looks for copies before it asks which are condemned
 * ONE_COLLECTOR leaves out the second collector: fewer orders, for a quick look.
 */

#define COPIES 3
#define ITEMS 4
#define NOBODY 100

byte generation = 0;
bool there[ITEMS];
byte condemned[ITEMS];                /* the generation; 0: not condemned */
byte made = 1;                        /* copies that were ever made */

byte registered[2];                   /* the lock that a session holds; NOBODY: none */
bool has_session[2];
bool commits[2];                      /* the commit of each writer: it names the blob and its file */

bool collecting = false;

#define BLOB_NAMED (commits[0] || commits[1])
#define BLOB_THERE (there[0] || there[1] || there[2])
#define SAFE assert(!BLOB_NAMED || BLOB_THERE); assert(!commits[0] || there[3])

proctype Writer(byte me) {
  byte noted; bool found; bool first[COPIES];
  noted = generation;
  atomic { registered[me] = noted; has_session[me] = true }
  atomic { if :: me == 0 -> there[COPIES] = true :: else fi };
#ifdef LOOK_FIRST
  d_step { first[0] = there[0]; first[1] = there[1]; first[2] = there[2] };
  atomic {
    found = (first[0] && !condemned[0]) || (first[1] && !condemned[1]) || (first[2] && !condemned[2]);
#else
  d_step { first[0] = condemned[0] > 0; first[1] = condemned[1] > 0; first[2] = condemned[2] > 0 };
  atomic {
    found = (there[0] && !first[0]) || (there[1] && !first[1]) || (there[2] && !first[2]);
#endif
    first[0] = false; first[1] = false; first[2] = false;
    if :: found -> goto publish :: else fi
  };
#ifdef SAME_NAME
  condemned[0] = 0; there[0] = true;
#else
  atomic { there[made] = true; made++ };
#endif
publish:
  if
#ifdef NO_SESSION
  :: atomic { true -> commits[me] = true; SAFE }
#else
  :: atomic { has_session[me] -> commits[me] = true; SAFE }
  :: !has_session[me] ->              /* it learns that its session has ended */
#ifdef CHECK_FIRST
    if :: generation > noted -> goto give_up :: else fi;
    atomic { registered[me] = noted; has_session[me] = true }
#else
    atomic { registered[me] = noted; has_session[me] = true };
#ifndef NO_CHECK
    if :: generation > noted -> goto give_up :: else fi
#endif
#endif
    goto publish
#endif
  :: true -> skip                     /* it fails, or is killed */
  fi;
give_up:
  atomic { registered[me] = NOBODY; has_session[me] = false; noted = 0; found = false }
}

proctype Server() {                   /* ends sessions of writers */
  byte times;
  do
  :: atomic { times < 1 && has_session[0] -> registered[0] = NOBODY; has_session[0] = false; times++ }
  :: atomic { times < 1 && has_session[1] -> registered[1] = NOBODY; has_session[1] = false; times++ }
  :: break
  od
}

#define NAMED(one) (one < COPIES -> blob_named : file_named)

proctype Collector(byte rounds) {
  byte oldest, round, i; bool blob_named; bool file_named;
  do
  :: round < rounds ->
    atomic { !collecting -> collecting = true };
    oldest = (registered[0] < registered[1] -> registered[0] : registered[1]);
    d_step { blob_named = BLOB_NAMED; file_named = commits[0]; i = 0 };
    do
    :: atomic { i < ITEMS && (!there[i] || NAMED(i)) -> condemned[i] = 0; i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && condemned[i] == 0 ->
        generation++; condemned[i] = generation; i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && oldest < condemned[i] -> i++ }
    :: atomic { i < ITEMS && there[i] && !NAMED(i) && condemned[i] > 0 && oldest >= condemned[i] ->
        if
        :: true -> there[i] = false; condemned[i] = 0; SAFE; i++
        :: true -> collecting = false; goto late    /* suspended before its request */
        fi }
    :: i == ITEMS -> break
    od;
    collecting = false;
    d_step {                          /* fewer states to tell apart */
      i = 0; oldest = 0; round++;
      blob_named = false; file_named = false
    }
  :: atomic { else -> round = 0; goto ended }
  od;
late:
  atomic { there[i] = false; SAFE; i = 0; oldest = 0; round = 0; blob_named = false; file_named = false };
ended: skip
}

init {
  atomic {
    registered[0] = NOBODY; registered[1] = NOBODY;
    there[0] = true;                  /* somebody stored the blob and died */
    run Writer(0); run Writer(1); run Server(); run Collector(2);
#ifndef ONE_COLLECTOR
    run Collector(1)
#endif
  }
}
