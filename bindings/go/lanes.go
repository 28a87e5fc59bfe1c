//go:build cgo && linux && (amd64 || arm64 || loong64 || ppc64le || riscv64)

package opendiskmap

// Look-ups by direct calls, where that is possible: on amd64, by handles that belong to threads.
//
// A lane is a handle of the C interface and what its last look-up found. Lane number n of a store is taken by the thread
// with number n alone, within a direct call: so, with nobody else on that thread, taking it needs no locked instruction.
// Whoever has taken it gives it back, on whatever thread he is by then, with a plain store. What direct calls must not do
// is done through cgo, every so often and whenever odm_try_get says so.
//
// Who wants lanes that nobody has taken (sweep, close) bars them and then has every thread of the process pass a memory
// barrier. From then on whoever takes one sees the bar, and gives up; and whoever gives one back either did so before,
// which is seen here, or sees the bar afterwards. tests/protocol/lanes.pml is a model of this, with what goes wrong where a
// step is left out.

/*
#cgo noescape odm_go_lane_get
#cgo nocallback odm_go_lane_get

#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <opendiskmap.h>
#include "direct.h"

enum { ODM_GO_LANES = 64 };

typedef struct {
    odm_map *map;  // NULL: none yet, or closed
    uint32_t busy; // taken
    // What the last look-up found.
    odm_status status;
    const void *value;
    size_t value_size;
    odm_go_pace pace; // no direct calls if there is no map
    uint32_t calls;   // direct ones, since the last sweep on their account
} __attribute__((aligned(128))) odm_go_lane; // Two cache lines: processors fetch them in pairs.

typedef struct {
    odm_go_lane lanes[ODM_GO_LANES]; // The first is nobody's, and always busy.
    uint32_t barred;
} odm_go_lanes;

// ---- numbers of threads

// From 1; 0: the thread has none, and looks up through cgo. initial-exec: where it lies is known without a call.
static __thread uint32_t odm_go_number __attribute__((tls_model("initial-exec")));
static __thread uint32_t odm_go_numberless; // look-ups until it asks again, as there was none left for it
static uint64_t odm_go_numbers = 1;     // a bit for each that is taken
static pthread_key_t odm_go_key;

static void odm_go_number_give(void *number)
{
    // The thread may call Go even now, from destructors of others.
    odm_go_number = 0;
    odm_go_numberless = UINT32_MAX;
    // Release: partner of the acquire of the thread that has it next, and with it the lanes.
    __atomic_fetch_and(&odm_go_numbers, ~(UINT64_C(1) << (uintptr_t)number), __ATOMIC_RELEASE);
}

static void odm_go_number_take(void)
{
    uint64_t taken = __atomic_load_n(&odm_go_numbers, __ATOMIC_RELAXED);
    while (odm_go_number == 0 && ~taken != 0) {
        uint32_t free = (uint32_t)__builtin_ctzll(~taken);
        if (!__atomic_compare_exchange_n(&odm_go_numbers, &taken, taken | UINT64_C(1) << free, false, __ATOMIC_ACQUIRE,
                                         __ATOMIC_RELAXED)) {
            continue;
        }
        odm_go_number = free;
        if (pthread_setspecific(odm_go_key, (void *)(uintptr_t)free) != 0) {
            odm_go_number_give((void *)(uintptr_t)free);
            break;
        }
    }
    odm_go_numberless = odm_go_number == 0 ? ODM_GO_COLD_CALLS : 0;
}

// ---- taking and giving back

static inline void odm_go_lane_give(odm_go_lane *lane)
{
    __atomic_store_n(&lane->busy, 0, __ATOMIC_RELEASE);
}

// Takes a lane that belongs to the calling thread.
static inline __attribute__((always_inline)) bool odm_go_lane_take(odm_go_lanes *lanes, odm_go_lane *lane)
{
    // Acquire: partner of the release of who gave it back.
    if (__builtin_expect(__atomic_load_n(&lane->busy, __ATOMIC_ACQUIRE) != 0, 0)) return false;
    __atomic_store_n(&lane->busy, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); // For the compiler; for the processor, odm_go_lanes_bar.
    if (__builtin_expect(__atomic_load_n(&lanes->barred, __ATOMIC_ACQUIRE) == 0, 1)) return true;
    odm_go_lane_give(lane);
    return false;
}

// False: there was no barrier, so nothing is known of any lane.
static bool odm_go_lanes_bar(odm_go_lanes *lanes)
{
    __atomic_store_n(&lanes->barred, 1, __ATOMIC_SEQ_CST);
    return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

// Whether nobody has, or will have, this lane of lanes that are barred. Whoever finds the bar gives back what he had taken.
static bool odm_go_lane_is_idle(odm_go_lane *lane)
{
    return __atomic_load_n(&lane->busy, __ATOMIC_ACQUIRE) == 0 && lane->map != NULL;
}

static void odm_go_lanes_sweep(odm_go_lanes *lanes)
{
    bool known = odm_go_lanes_bar(lanes);
    for (odm_go_lane *lane = lanes->lanes; known && lane < lanes->lanes + ODM_GO_LANES; ++lane) {
        if (odm_go_lane_is_idle(lane)) odm_refresh(lane->map);
    }
    // Release: a taker who sees that the bar is gone sees the handles as they are now.
    __atomic_store_n(&lanes->barred, 0, __ATOMIC_RELEASE);
}

// Bars the lanes for good, and closes what is not taken; to be called again by whoever gives one back and finds the bar.
static odm_status odm_go_lanes_close(odm_go_lanes *lanes)
{
    odm_status worst = ODM_OK;
    if (!odm_go_lanes_bar(lanes)) return ODM_E_UNSUPPORTED; // They stay open.
    for (odm_go_lane *lane = lanes->lanes; lane < lanes->lanes + ODM_GO_LANES; ++lane) {
        if (!odm_go_lane_is_idle(lane)) continue;
        odm_status status = odm_close(lane->map);
        if (status < worst) worst = status;
        lane->map = NULL;
    }
    return worst;
}

static bool odm_go_ready; // the system has such a barrier, and a key for the numbers of threads

// Before the process has other threads: with them, the registration waits for all processors, which takes 12 ms.
__attribute__((constructor)) static void odm_go_get_ready(void)
{
    odm_go_ready = ODM_GO_DIRECT && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
                   pthread_key_create(&odm_go_key, odm_go_number_give) == 0;
}

// NULL where there can be none.
static odm_go_lanes *odm_go_lanes_new(void)
{
    if (!odm_go_ready) return NULL;
    odm_go_lanes *lanes = aligned_alloc(_Alignof(odm_go_lanes), sizeof *lanes);
    if (lanes == NULL) return NULL;
    memset(lanes, 0, sizeof *lanes);
    lanes->lanes[0].busy = 1;
    return lanes;
}

// Opens the calling thread's lane. The caller has root to himself, and keeps others from closing the lanes.
static void odm_go_lane_open(odm_go_lanes *lanes, odm_map *root)
{
    odm_go_number_take();
    odm_go_lane *lane = &lanes->lanes[odm_go_number];
    odm_map *map;
    if (lane->map != NULL || odm_go_number == 0) return;
    if (odm_dup(root, &map, NULL) != ODM_OK) {
        lane->pace.cold = ODM_GO_COLD_CALLS; // until it tries again
        return;
    }
    lane->map = map;
}

// ---- looking up

typedef struct {
    odm_go_lane *lane; // NULL: it can not be had
    bool open;         // as there is none yet
} odm_go_lane_got;

// Through cgo: takes the calling thread's lane and looks up whatever it takes.
static odm_go_lane_got odm_go_lane_get(odm_go_lanes *lanes, const char *key, size_t key_size)
{
    odm_go_lane *lane = &lanes->lanes[odm_go_number];
    if (odm_go_number == 0) {
        if (odm_go_numberless > 0) --odm_go_numberless;
        return (odm_go_lane_got){NULL, odm_go_numberless == 0};
    }
    if (!odm_go_lane_take(lanes, lane)) return (odm_go_lane_got){NULL, false};
    if (lane->map == NULL) {
        if (lane->pace.cold > 0) --lane->pace.cold;
        bool open = lane->pace.cold == 0;
        odm_go_lane_give(lane);
        return (odm_go_lane_got){NULL, open};
    }
    uint32_t run = lane->pace.run;
    if (odm_go_not_direct(&lane->pace)) {
        odm_refresh(lane->map);
        lane->calls += run;
    }
    lane->status = odm_get(lane->map, key, key_size, &lane->value, &lane->value_size);
    return (odm_go_lane_got){lane, false};
}

// By a direct call: the same, where nothing of it takes long. Else NULL: then through cgo.
static odm_go_lane *odm_go_lane_try_get(odm_go_lanes *lanes, const char *key, size_t key_size)
{
    odm_go_lane *lane = &lanes->lanes[odm_go_number];
    if (!odm_go_lane_take(lanes, lane)) return NULL;
    lane->status = odm_go_try_get(&lane->pace, lane->map, key, key_size, &lane->value, &lane->value_size);
    if (__builtin_expect(lane->status != ODM_WOULD_BLOCK, 1)) return lane;
    odm_go_lane_give(lane);
    return NULL;
}

static void *odm_go_lane_try_get_address(void)
{
    return (void *)odm_go_lane_try_get;
}
*/
import "C"

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"opendiskmap.example/opendiskmap/internal/direct"
)

type (
	lane  = C.odm_go_lane
	lanes = C.odm_go_lanes
)

var tryGet = C.odm_go_lane_try_get_address()

// openLanes gives a store lanes, if direct calls are of use to it. Read-only handles look for a newer index from time to
// time, and those that verify what they read do so in every odm_get.
func (s *store) openLanes(o *Options) {
	if !direct.Supported || o.ReadOnly || o.VerifyReads {
		return
	}
	if s.lanes = C.odm_go_lanes_new(); s.lanes != nil {
		runtime.AddCleanup(s, func(lanes *lanes) { C.free(unsafe.Pointer(lanes)) }, s.lanes)
	}
}

// lookUpDirectly takes a lane and looks a key up; nil: lookUpThroughCgo may.
func lookUpDirectly(lanes *lanes, key span) *lane {
	return (*lane)(direct.Call(tryGet, unsafe.Pointer(lanes), unsafe.Pointer(key.start), key.size))
}

// lookUpThroughCgo is the same with all that may take long; nil: it needs a handle.
func (s *store) lookUpThroughCgo(key span) *lane {
	got := C.odm_go_lane_get(s.lanes, key.c(), key.n())
	switch {
	case bool(got.open):
		s.openLane()
	case got.lane == nil:
		s.closeLane() // If it gave up at the bar, then who closed may have seen it taken.
	case got.lane.calls >= sweepEvery:
		got.lane.calls = 0
		s.sweep()
	}
	return got.lane
}

// openLane gives the thread that this happens to run on a lane, unless it has one.
func (s *store) openLane() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.Load() {
		C.odm_go_lane_open(s.lanes, s.root.out._map)
	}
}

// giveLane ends a look-up. From here on, its value may end at any time.
func (s *store) giveLane(l *lane) {
	// On amd64, the only place that has lanes, every store is a release; an atomic one would wait for all before it, and keep
	// the processor from the next look-up.
	l.busy = 0
	if atomic.LoadUint32((*uint32)(&s.lanes.barred)) != 0 {
		s.closeLane()
	}
}

// closeLane closes what is to be closed, for somebody who gave a lane back and found the bar. Whoever closes the map later
// sees that it was given back.
func (s *store) closeLane() {
	if !s.closed.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	C.odm_go_lanes_close(s.lanes)
}

func (s *store) sweepLanesLocked() {
	if s.lanes != nil {
		C.odm_go_lanes_sweep(s.lanes)
	}
}

func (s *store) closeLanesLocked() Code {
	if s.lanes == nil {
		return OK
	}
	return Code(C.odm_go_lanes_close(s.lanes))
}

// foundBy is the value that a lane's look-up has found, until giveLane.
func foundBy(l *lane) []byte { return unsafe.Slice((*byte)(l.value), int(l.value_size)) }

// notFoundBy is the error of a lane's look-up that has found nothing: nil, if that is all.
func (s *store) notFoundBy(op string, l *lane) error {
	code := Code(l.status)
	if code == ErrNotFound {
		return nil
	}
	detail := C.odm_error{struct_size: C.sizeof_odm_error}
	C.odm_last_error(l._map, &detail)
	return errorOf(op, s.path, code, &detail)
}
