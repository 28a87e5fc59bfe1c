package opendiskmap

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// A handle of the C interface is used by one thread at a time, so a call borrows one from its map's store, if lanes.go has
// none for it. Two goroutines that run side by side must not wait for one another's cache lines when they do: hence the
// hints.

const (
	handlesMax = 64 // calls of one map at a time; beyond, a call opens a handle of its own and closes it afterwards
	hintCount  = 256
	// An idle handle holds on to what it gave out last, and with it disk space: from time to time, those who call refresh it.
	sweepEvery  = 4096    // calls, or look-ups of a Reader
	scratchKeep = 1 << 16 // bytes of a handle's buffers that are kept for the next call
)

// What a handle's state is. Whoever turns idle into busy owns it.
const (
	empty uint32 = iota // was not opened yet
	idle
	busy
	shut // closed, for good
)

type handle struct {
	native
	state     atomic.Uint32
	calls     uint32
	temporary bool
	key       []byte // encoded for a call, kept for the next
	value     []byte
	ends      []uint64
	_         [24]byte // to two cache lines: processors fetch them in pairs
}

// A store is a map without types: the handles of it that this process has.
type store struct {
	path    string
	hints   [hintCount]atomic.Uint32
	handles [handlesMax]handle

	walks   atomic.Int32  // loops that run
	changes atomic.Uint64 // while loops ran; what they have read ahead may be out of date after each
	closed  atomic.Bool
	mu      sync.Mutex // owns root
	root    native     // is duplicated, and used for nothing else
	lanes   *lanes     // nil: there are none
}

func newStore(path string, root native) *store {
	return &store{path: path, root: root}
}

// hint is where the calling goroutine finds the number of the handle it used last. Goroutines are told apart by where their
// stacks lie: no two have the same place, and a stack rarely moves. A wrong guess costs time only.
func (s *store) hint() *atomic.Uint32 {
	var here byte
	page := uint64(uintptr(unsafe.Pointer(&here))) >> 11 // the smallest stack is 2 KiB
	return &s.hints[page*0x9e3779b97f4a7c15>>56%hintCount]
}

// take borrows a handle until give.
func (s *store) take() (*handle, error) {
	hint := s.hint()
	h := &s.handles[hint.Load()%handlesMax]
	if h.state.CompareAndSwap(idle, busy) {
		return h, nil
	}
	return s.takeOther(hint)
}

func (s *store) takeOther(hint *atomic.Uint32) (*handle, error) {
	for i := range s.handles {
		h := &s.handles[i]
		if h.state.Load() == empty {
			if err := s.fill(h); err != nil {
				return nil, err
			}
		}
		if h.state.CompareAndSwap(idle, busy) {
			hint.Store(uint32(i))
			return h, nil
		}
	}
	h := &handle{temporary: true}
	h.state.Store(busy)
	return h, s.open(h)
}

// fill opens a handle for an empty place, unless somebody else has.
func (s *store) fill(h *handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.state.Load() != empty {
		return nil
	}
	if err := s.openLocked(h); err != nil {
		return err
	}
	h.state.Store(idle)
	return nil
}

func (s *store) open(h *handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openLocked(h)
}

func (s *store) openLocked(h *handle) (err error) {
	if s.closed.Load() {
		return ErrClosed
	}
	h.native, err = s.root.dup(s.path)
	return err
}

// give ends a borrowing. From here on, the handle's slices may end at any time.
func (s *store) give(h *handle) {
	if cap(h.key) > scratchKeep {
		h.key = nil
	}
	if cap(h.value) > scratchKeep {
		h.value = nil
	}
	if h.temporary {
		h.native.close()
		return
	}
	h.calls++
	sweep := h.calls >= sweepEvery
	if sweep {
		h.calls = 0
	}
	h.state.Store(idle)
	// After the store: either this sees that the map was closed, or close sees that the handle is idle.
	if s.closed.Load() {
		s.shutIdle(h)
	} else if sweep {
		s.sweep()
	}
}

// giveWriter is give after a call that may have changed the map.
func (s *store) giveWriter(h *handle) {
	// After the write: either this sees the loop that runs, or the loop reads its entries later than the write.
	if s.walks.Load() != 0 {
		s.changes.Add(1)
	}
	s.give(h)
}

// sweep lets idle handles let go of what they hold.
func (s *store) sweep() {
	for i := range s.handles {
		h := &s.handles[i]
		if h.state.CompareAndSwap(idle, busy) {
			h.native.refresh()
			h.state.Store(idle)
			if s.closed.Load() {
				s.shutIdle(h)
			}
		}
	}
	if s.mu.TryLock() {
		if !s.closed.Load() {
			s.root.refresh()
			s.sweepLanesLocked()
		}
		s.mu.Unlock()
	}
}

// shutIdle closes a handle of a closed map, unless a call has it: then its give does.
func (s *store) shutIdle(h *handle) Code {
	if h.state.CompareAndSwap(idle, shut) {
		return h.native.close()
	}
	return OK
}

// close ends the map for calls that begin from now on. Those on their way end as if nothing were.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	worst := OK
	for i := range s.handles {
		h := &s.handles[i]
		if h.state.CompareAndSwap(empty, shut) {
			continue
		}
		worst = min(worst, s.shutIdle(h))
	}
	worst = min(worst, s.closeLanesLocked())
	worst = min(worst, s.root.close())
	if worst < 0 {
		return &Error{Op: "close", Path: s.path, Code: worst}
	}
	return nil
}

// failed makes an error of what a call on h has returned.
func (s *store) failed(op string, h *handle, code Code) error {
	return h.native.failed(op, s.path, code)
}

// refused makes an error of what came before C was called: no handle, no encoding.
func (s *store) refused(op string, err error) error {
	switch err := err.(type) {
	case *Error:
		return err
	case Code:
		return &Error{Op: op, Path: s.path, Code: err}
	}
	return &Error{Op: op, Path: s.path, Code: ErrEncoding, Err: err}
}
