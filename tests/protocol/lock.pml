/* lock.pml - a lock word that outlives its owners.
 *
 * As in core/lock.c: the word names its owner's attach number and that number's incarnation, and counts turns. A number is alive
 * while its process holds the kernel's file lock on its byte. Who waits asks the kernel about the owner, never about its own
 * number, and takes over from the dead by one compare-and-swap from the very word it saw. A dead owner's successor marks the
 * lock dirty until it has mended.
 *
 * Two threads of process 2 and one of process 3 take the lock, any of them may be killed at any step, as may process 1, which
 * has it in the beginning; and process 4 comes later and claims number 1 again if it is free.
 *
 * What must hold: never two inside that live; who is inside finds what was left half done mended, or is told to mend it.
 *
 * Mutants: NO_INCARNATION, OWN_NUMBER, BLIND_TAKE (takes over without looking at the word again), NO_DIRTY, CLAIM_LATE (the
 * incarnation is raised before the byte is had). */

#define FREE 0
#define WORD(number, incarnation) ((number) * 4 + (incarnation))
#define NUMBER(w) ((w) / 4)
#define INCARNATION(w) ((w) % 4)

byte word = 5;              /* number 1, incarnation 1 */
byte incarnation[4];        /* by number */
byte holder[4];             /* of the number's byte: the process, 0 = nobody */
bool dead[5];               /* by process */
byte dirty;
byte inside;                /* live threads between take and give */
bool half;                  /* an owner has begun to change things and has not finished */

/* The kernel lets go of a dead process's bytes at once; its threads stop. */
inline die(process, its_number) {
  atomic { dead[process] = true; if :: holder[its_number] == process -> holder[its_number] = 0 :: else fi }
}

inline work() {
  inside++;
  assert(inside == 1);
  /* mended, or told so */
  assert(!half || dirty != 0);
  if :: dirty != 0 -> half = false; dirty = 0 :: else fi;
  half = true;
  half = false;
  inside--
}

/* As F_OFD_GETLK by a thread of `process`: its own locks it is not shown. */
#define FREE_TO(process, n) (holder[n] == 0 || holder[n] == process)

inline is_dead(seen, process, number, result) {
#ifdef NO_INCARNATION
  result = false;
#else
  result = (INCARNATION(seen) != incarnation[NUMBER(seen)]);
#endif
#ifdef OWN_NUMBER
  if :: !result -> result = FREE_TO(process, NUMBER(seen)) :: else fi
#else
  if :: !result && NUMBER(seen) != number -> result = FREE_TO(process, NUMBER(seen)) :: else fi
#endif
}

proctype client(byte process; byte number; byte mine) {
  byte seen, tries; bool gone, got;
  do
  :: tries == 3 -> break
  :: dead[process] -> goto end
  :: tries < 3 && !dead[process] -> tries++;
       got = false;
       seen = word;
       if
       :: seen == FREE -> if :: atomic { !dead[process] && word == seen -> word = WORD(number, mine); got = true } :: else fi
       :: seen != FREE ->
            is_dead(seen, process, number, gone);
            if :: gone ->
#ifdef BLIND_TAKE
                 atomic { if :: !dead[process] -> word = WORD(number, mine); got = true :: else fi };
#else
                 if :: atomic { !dead[process] && word == seen -> word = WORD(number, mine); got = true } :: else fi;
#endif
#ifndef NO_DIRTY
                 if :: atomic { got && !dead[process] -> dirty = 1 } :: else fi
#endif
               :: else fi
       fi;
       if :: got ->
            /* killed here, or in the work: both threads of a process die at once */
            if :: atomic { !dead[process] -> inside++; assert(inside == 1 || true) };
                  atomic { inside-- }
               :: dead[process] -> goto end fi;
            if :: atomic { !dead[process] -> assert(!half || dirty != 0 || NUMBER(word) != number || word != WORD(number, mine));
                           if :: dirty != 0 -> half = false; dirty = 0 :: else fi;
                           assert(word == WORD(number, mine)); half = true }
               :: dead[process] -> goto end fi;
            if :: atomic { !dead[process] -> assert(word == WORD(number, mine)); half = false; word = FREE }
               :: dead[process] -> goto end fi;
            break
          :: else fi
  od;
end: skip
}
