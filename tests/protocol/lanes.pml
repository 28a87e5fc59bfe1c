/* lanes.pml - look-ups without locked instructions, beside one who sweeps and one who closes.
 *
 * As in bindings/go/lanes.go: a lane belongs to a thread, which alone takes it, by plain stores; whoever has it gives it
 * back, on this thread or another. Sweep and close bar the lanes, have every thread pass a memory barrier, and then have
 * all lanes that are not taken. Whoever takes a lane and sees the bar gives it back at once; he, and whoever gives one back
 * and sees the bar, closes what is left, if the map was closed.
 *
 * A store waits in its thread's buffer until it is flushed, at any time (x86); loads look into the own buffer first. Thread
 * 0 owns the lane and looks up LOOKUPS times; thread 1 gives back what a goroutine took on thread 0 before it was moved
 * here.
 *
 * What must hold: nobody refreshes or closes the lane's handle while it is in use; nobody uses it when it is closed; in the
 * end it is closed.
 *
 * Mutants: NO_BARRIER, NO_BAR (the taker does not look), GIVER_BLIND, TAKER_BLIND (do not look whether the map was closed),
 * UNBAR_CLOSED (a sweep takes away the bar of a close). */
#ifndef LOOKUPS
#define LOOKUPS 3
#endif

bool barred, closed, mutex;
bool open = true;               /* the handle */
byte using;                     /* look-ups, between being taken and being given back */
bool handed;                    /* to thread 1 */
byte busy;                      /* in memory */
chan buffer[2] = [3] of { byte };
byte newest[2];                 /* what each thread stored last, if its buffer is not empty */
bool ended[2];

inline store(thread, value) { atomic { buffer[thread] ! value; newest[thread] = value } }
inline flush(thread) { buffer[thread] ? busy }

/* Every thread passes a barrier, one after the other. */
inline barrier() {
#ifdef NO_BARRIER
  skip
#else
  atomic { do :: len(buffer[0]) > 0 -> flush(0) :: len(buffer[0]) == 0 -> break od }
  atomic { do :: len(buffer[1]) > 0 -> flush(1) :: len(buffer[1]) == 0 -> break od }
#endif
}

inline close_idle() {
  barred = true;
  barrier();
  if
  :: atomic { (busy == 0 && open) -> assert(using == 0); open = false }
  :: busy != 0 || !open
  fi
}

inline close_rest() {
  if
  :: closed ->
       atomic { !mutex -> mutex = true }
       close_idle();
       mutex = false
  :: else
  fi
}

/* The value of a lane is read until here. */
inline give(thread) {
  atomic { assert(open); using--; }
  store(thread, 0);
#ifndef GIVER_BLIND
  if :: barred -> close_rest() :: else fi
#endif
}

active proctype owner() {
  byte done, seen;
  do
  :: done < LOOKUPS ->
       done++;
       atomic { if :: len(buffer[0]) > 0 -> seen = newest[0] :: len(buffer[0]) == 0 -> seen = busy fi }
       if
       :: seen != 0                      /* taken: this look-up needs another handle */
       :: else ->
            store(0, 1);
            if
#ifndef NO_BAR
            :: barred ->
                 store(0, 0);
#ifndef TAKER_BLIND
                 close_rest()
#endif
            :: !barred ->
#else
            :: true ->
#endif
                 atomic { using++; assert(open) }
                 if
                 :: give(0)
                 :: atomic { len(buffer[0]) == 0 -> handed = true } /* by a store of the scheduler's, after all before */
                 fi
            fi
       fi
  :: else -> break
  od;
  ended[0] = true
}

active proctype mover() {
  do
  :: atomic { handed -> handed = false }; give(1)
  :: !handed && ended[0] -> break
  od;
  ended[1] = true
}

active proctype flusher() {
  do
  :: flush(0)
  :: flush(1)
  :: ended[0] && ended[1] && len(buffer[0]) == 0 && len(buffer[1]) == 0 -> break
  od
}

active proctype sweeper() {
  atomic { !mutex -> mutex = true }
  if
#ifndef UNBAR_CLOSED
  :: !closed ->
#else
  :: true ->
#endif
       barred = true;
       barrier();
       if
       :: atomic { (busy == 0 && open) -> assert(using == 0) }
       :: busy != 0 || !open
       fi;
       barred = false
  :: else
  fi;
  mutex = false
}

active proctype closer() {
  atomic { !mutex -> mutex = true }
  closed = true;
  close_idle();
  mutex = false;
  ended[0] && ended[1] && !mutex;
  assert(!open)
}
