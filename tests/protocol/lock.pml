/* lock.pml - a lock word that outlives its owners.
 *
 * As in core/lock.c: the word names its owner's attach number and that number's incarnation. A number is alive while its process
 * holds the kernel's file lock on its byte; claiming one raises its incarnation, after the byte was had. Who waits asks the
 * kernel about the owner, never about its own number, and takes over from the dead by one compare-and-swap from the very word
 * it saw. The successor of a dead owner marks the lock dirty until it has mended what that one left half done.
 *
 * Process 1 has the lock in the beginning; two threads of process 2 want it (-DTHIRD: and one of process 3); process 4 claims
 * number 1 again once it is free, and wants it, too. Two processes are killed, at any moment. In the end process 5 wants it.
 *
 * What must hold: never two inside that live; whoever is inside finds nothing half done that it was not told of; process 5
 * gets the lock.
 *
 * Mutants: NO_INCARNATION, OWN_NUMBER (a thread asks about its own), BLIND_TAKE (no comparing), NO_DIRTY, CLAIM_FIRST (the
 * incarnation is raised before the byte is had), STEAL (nobody is asked). */

#ifndef TRIES
#define TRIES 2
#endif
#define FREE 0
#define WORD(number, incarnation) ((number) * 4 + (incarnation))
#define NUMBER(w) ((w) / 4)
#define INCARNATION(w) ((w) % 4)
/* One step of a process that may be dead by now. */
#define STEP(what) atomic { if :: dead[process] -> goto end :: else -> what fi }

byte word = WORD(1, 1);
byte incarnation[6] = 1;    /* by number */
byte holder[6];             /* of the number's byte: a process; 0 = nobody */
bool dead[6];               /* by process */
bool inside[6];             /* by process, but for the two threads of 2: inside[2] and inside[0] */
bool dirty, half;           /* half: an owner has begun to change things, and has not finished */

inline nobody_else(me) {
  byte k;
  k = 0;
  do :: k < 6 -> assert(k == me || !inside[k] || dead[k] || (k == 0 && dead[2])); k++ :: else -> break od;
  k = 0
}

inline ask(process, number, seen, gone) {
  atomic {
    gone = false;
#ifdef STEAL
    gone = true;
#endif
#ifndef NO_INCARNATION
    if :: INCARNATION(seen) != incarnation[NUMBER(seen)] -> gone = true :: else fi;
#endif
    /* A descriptor is not shown its own locks. */
    if
#ifndef OWN_NUMBER
    :: NUMBER(seen) == number -> skip
#endif
    :: else -> if :: holder[NUMBER(seen)] == 0 || holder[NUMBER(seen)] == process -> gone = true :: else fi
    fi
  }
}

inline use(me) {
  STEP(nobody_else(me); inside[me] = true);
  STEP(if :: dirty -> half = false :: else fi);
  STEP(dirty = false);
  STEP(assert(!half); half = true);
  STEP(half = false);
  STEP(inside[me] = false);
  STEP(word = FREE)
}

proctype client(byte process; byte number; byte mine; byte me) {
  byte seen, tries; bool gone, got;
  do
  :: tries == TRIES -> break
  :: tries < TRIES ->
       tries++;
       STEP(seen = word);
       if
       :: seen == FREE -> STEP(if :: word == seen -> word = WORD(number, mine); got = true :: else fi)
       :: seen != FREE ->
            ask(process, number, seen, gone);
            if
            :: gone ->
#ifdef BLIND_TAKE
                 STEP(word = WORD(number, mine); got = true);
#else
                 STEP(if :: word == seen -> word = WORD(number, mine); got = true :: else fi);
#endif
#ifndef NO_DIRTY
                 if :: got -> STEP(dirty = true) :: else fi
#endif
            :: else
            fi
       fi;
       if :: got -> use(me); break :: else fi
  od;
end: assert(process != 5 || got)
}

proctype first() {
  byte process = 1;
  STEP(half = true);
  STEP(half = false);
  STEP(inside[1] = false);
  STEP(word = FREE);
end: skip
}

proctype again() {
#ifdef CLAIM_FIRST
  incarnation[1]++;
  if :: atomic { holder[1] == 0 -> holder[1] = 4 } :: holder[1] != 0 -> goto end fi;
#else
  if :: atomic { holder[1] == 0 -> holder[1] = 4 } :: holder[1] != 0 -> goto end fi;
#ifndef NO_INCARNATION
  incarnation[1]++;
#endif
#endif
  run client(4, 1, incarnation[1], 4);
end: skip
}

proctype killer() {
  byte kills;
  do
  :: kills == 2 -> break
  :: kills < 2 ->
       kills++;
       if
       :: atomic { dead[1] = true; if :: holder[1] == 1 -> holder[1] = 0 :: else fi }
       :: atomic { dead[2] = true; holder[2] = 0 }
#ifdef THIRD
       :: atomic { dead[3] = true; holder[3] = 0 }
#endif
       :: atomic { dead[4] = true; if :: holder[1] == 4 -> holder[1] = 0 :: else fi }
       :: skip
       fi
  od
}

init {
  atomic {
    holder[1] = 1; holder[2] = 2; holder[3] = 3; holder[5] = 5; inside[1] = true;
    run first(); run again(); run killer();
#ifdef THIRD
    run client(3, 3, 1, 3);
#endif
    run client(2, 2, 1, 2); run client(2, 2, 1, 0)
  }
  (_nr_pr == 1);
  run client(5, 5, 1, 5)
}
