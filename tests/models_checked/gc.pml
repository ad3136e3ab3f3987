/* Garbage collection against two writers and somebody who deletes branches.
 *
 * One blob, found by its digest, and one table file, whose name nobody else can make. Commits name
 * them; a branch keeps a commit alive. A writer takes its lock, notes the generation, wants the
 * blob or finds the file through a record, then publishes. Each atomic step below is one that the
 * real thing makes atomic: a transaction, a lock of the blobs, one read of the records.
 *
 * Promised: whenever a commit that exists names the blob or the file, it is there.
 *
 * Each of these, defined, leaves out one part of the protocol, and the checker finds the loss:
 *   NO_WRITERS  open writers are not asked for;  NO_WANTED  finding a blob does not mark it;
 *   WRITERS_LAST  they are asked for after the records;  FORGET_FIRST  commits are forgotten unseen
 */

#define COLLECTIONS 5
#define NOBODY 100

byte generation = 0;

bool blob_there = false;      /* the blob's bytes */
byte blob_mark = 0;           /* changes when it is made, or wanted again */
bool file_there = true;       /* the table file, written by writer 0 */

byte writer_generation[2];    /* NOBODY: not at work */
bool commit_there[2];         /* the commit of each writer: a record */
bool commit_names_blob[2];
bool commit_names_file[2];
bool on_branch[2];            /* a ref reaches it */

byte condemned_blob = 0;      /* the generation; 0: not condemned */
byte condemned_blob_mark = 0;
byte condemned_file = 0;
byte condemned_commit[2];

#define NAMED_BLOB ((commit_there[0] && commit_names_blob[0]) || (commit_there[1] && commit_names_blob[1]))
#define NAMED_FILE ((commit_there[0] && commit_names_file[0]) || (commit_there[1] && commit_names_file[1]))
#define FORGET_NOW(one) if :: commit_there[one] && !on_branch[one] -> commit_there[one] = false :: else fi
#define SAFE assert(!(NAMED_BLOB && !blob_there)); assert(!(NAMED_FILE && !file_there))

proctype Writer(byte me) {
  bool has_file = false;
  if
  :: me == 0 ->
    /* It has its lock and has written the file: that is how the file came to be. */
    has_file = true
  :: else ->
    atomic { writer_generation[me] = generation }
    if
    :: atomic { NAMED_FILE -> has_file = true }    /* read from a record */
    :: true -> skip
    fi
  fi;
  atomic {                                         /* put: alone with the blob */
    if
    :: blob_there ->
#ifndef NO_WANTED
      blob_mark++
#else
      skip
#endif
    :: else -> blob_there = true; blob_mark++
    fi
  }
  if
  :: atomic {                                      /* publish: one transaction */
      commit_there[me] = true; on_branch[me] = true;
      commit_names_blob[me] = true; commit_names_file[me] = has_file;
      SAFE
    }
  :: true -> skip                                  /* it fails, or is killed */
  fi;
  atomic { writer_generation[me] = NOBODY }
}

proctype Somebody() {                              /* stores a blob and dies; deletes branches */
  atomic { if :: !blob_there -> blob_there = true; blob_mark++ :: else fi }
  if :: atomic { on_branch[0] -> on_branch[0] = false } :: true -> skip fi;
  if :: atomic { on_branch[1] -> on_branch[1] = false } :: true -> skip fi
}

inline ask_for_writers() {
  d_step {
    oldest = writer_generation[0];
    if :: writer_generation[1] < oldest -> oldest = writer_generation[1] :: else fi
#ifdef NO_WRITERS
    oldest = NOBODY
#endif
  }
}

inline read_records() {
  d_step {
    named_blob = NAMED_BLOB; named_file = NAMED_FILE;
    dead[0] = commit_there[0] && !on_branch[0];
    dead[1] = commit_there[1] && !on_branch[1]
  }
}

inline forget(one) {                               /* one transaction, which looks again */
  d_step {
    if
    :: dead[one] && !on_branch[one] && condemned_commit[one] > 0 && oldest >= condemned_commit[one] ->
      commit_there[one] = false; condemned_commit[one] = 0
    :: else
    fi
  }
}

inline condemn_commit(one) {
  d_step {
    if
    :: dead[one] && condemned_commit[one] == 0 -> generation++; condemned_commit[one] = generation
    :: !dead[one] -> condemned_commit[one] = 0
    :: else
    fi
  }
}

proctype Collector() {
  byte oldest, mark, round; bool named_blob, named_file, there; bool dead[2];
  for (round : 1 .. COLLECTIONS) {
#ifdef FORGET_FIRST
    d_step { FORGET_NOW(0); FORGET_NOW(1) }
#endif
#ifndef WRITERS_LAST
    ask_for_writers();
    read_records();
#else
    read_records();
    ask_for_writers();
#endif
    /* The blob: what is there is listed with its mark; judged; condemned or removed. */
    d_step { there = blob_there; mark = blob_mark }
    if
    :: !there || named_blob -> d_step { condemned_blob = 0 }
    :: there && !named_blob && (condemned_blob == 0 || condemned_blob_mark != mark) ->
      d_step { generation++; condemned_blob = generation; condemned_blob_mark = mark }
    :: there && !named_blob && condemned_blob > 0 && condemned_blob_mark == mark ->
      if
      :: oldest >= condemned_blob ->
        atomic {                                   /* alone with the blob */
          if :: blob_mark == mark -> blob_there = false :: else fi;
          condemned_blob = 0; SAFE
        }
      :: else
      fi
    fi;
    /* The file: nobody makes its name again, so it has no mark. */
    if
    :: !file_there || named_file -> d_step { condemned_file = 0 }
    :: file_there && !named_file && condemned_file == 0 ->
      d_step { generation++; condemned_file = generation }
    :: file_there && !named_file && condemned_file > 0 ->
      if
      :: oldest >= condemned_file -> atomic { file_there = false; condemned_file = 0; SAFE }
      :: else
      fi
    fi;
    /* Commits last: what they name was seen, and spared, before. */
    forget(0); forget(1);
    condemn_commit(0); condemn_commit(1)
  }
}

init {
  atomic {
    writer_generation[0] = 0; writer_generation[1] = NOBODY;
    run Writer(0); run Writer(1); run Somebody(); run Collector()
  }
}
