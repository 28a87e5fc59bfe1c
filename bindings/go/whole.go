package opendiskmap

import (
	"context"
	"strings"
)

// stepMs is how long a step of long work may take: a cancelled context is noticed after one.
const stepMs = 20

// A Progress is told how far long work has come: done of total, in the work's own unit. total may grow. It may be nil.
type Progress func(done, total uint64)

// Len is the number of entries: exact while nobody is writing. It is 0 once the map is closed.
func (m *Map[K, V]) Len() int {
	h, err := m.store.take()
	if err != nil {
		return 0
	}
	defer m.store.give(h)
	return int(h.count())
}

// Cap is the number of entries the index has room for as it is; it grows by itself. It is 0 once the map is closed.
func (m *Map[K, V]) Cap() int {
	s, _ := m.Stat()
	return int(s.Capacity)
}

// LoadFactor is the share of the index's slots that are in use. It is 0 once the map is closed.
func (m *Map[K, V]) LoadFactor() float64 {
	s, err := m.Stat()
	if err != nil || s.Slots == 0 {
		return 0
	}
	return float64(s.Count) / float64(s.Slots)
}

// Schema is the names of the codecs that the map was made with, such as "u64/str"; empty if it keeps none.
func (m *Map[K, V]) Schema() (string, error) {
	h, err := m.store.take()
	if err != nil {
		return "", m.store.refused("schema", err)
	}
	defer m.store.give(h)
	schema, code := h.schema()
	if code != OK {
		return "", m.store.failed("schema", h, code)
	}
	return schema, nil
}

// Clear removes every key that was there. What is put meanwhile may stay or go.
func (m *Map[K, V]) Clear() error {
	h, err := m.store.take()
	if err != nil {
		return m.store.refused("clear", err)
	}
	defer m.store.giveWriter(h)
	if code := h.clear(); code != OK {
		return m.store.failed("clear", h, code)
	}
	return nil
}

// Sync returns when everything that any process put or removed before the call survives power loss. If ctx is done before,
// Sync returns its error, and the sync goes on in the background.
func (m *Map[K, V]) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return m.sync()
	}
	synced := make(chan error, 1)
	go func() { synced <- m.sync() }()
	select {
	case err := <-synced:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Map[K, V]) sync() error {
	h, err := m.store.take()
	if err != nil {
		return m.store.refused("sync", err)
	}
	defer m.store.give(h)
	if code := h.sync(); code != OK {
		return m.store.failed("sync", h, code)
	}
	return nil
}

// work does long work step by step, until it is finished or ctx is done.
func (m *Map[K, V]) work(ctx context.Context, op string, progress Progress, step func(native, *nativeProgress) Code) error {
	h, err := m.store.take()
	if err != nil {
		return m.store.refused(op, err)
	}
	defer m.store.give(h)
	p := newNativeProgress(stepMs)
	for {
		if err := ctx.Err(); err != nil {
			h.refresh() // It held what the next step would have needed.
			return err
		}
		code := step(h.native, p)
		if code != OK && code != done { // ErrExists, too, which is positive.
			return m.store.failed(op, h, code)
		}
		if progress != nil {
			progress(p.done())
		}
		if code == done {
			return nil
		}
	}
}

// Compact reclaims the room of all that was replaced or removed, and rebuilds the index at its proper size. The map may be
// used meanwhile. If ctx is done, Compact returns its error; the map is whole, and what was reclaimed stays so.
func (m *Map[K, V]) Compact(ctx context.Context, progress Progress) error {
	return m.work(ctx, "compact", progress, native.compact)
}

// A Report is what Verify has found.
type Report struct {
	Records    uint64 // read
	Bytes      uint64 // of the log, read
	BadRecords uint64 // of these, not whole
	BadSlots   uint64 // of the index, naming no record or the wrong one
	BadNumber  uint64 // number of the log file with the first bad record or slot
	BadOffset  uint64 // and its offset there, in bytes
}

// Verify reads every record, and checks every checksum and every slot of the index. What it finds is in the report; the error
// is nil, or ErrCorrupt if something is bad.
func (m *Map[K, V]) Verify(ctx context.Context, progress Progress) (Report, error) {
	r := newNativeReport()
	err := m.work(ctx, "verify", progress, func(n native, p *nativeProgress) Code { return n.verify(r, p) })
	return r.report(), err
}

// Backup copies the map to the directory path, which must be absent or empty: consistently, while others go on writing. A map
// that is there is ErrExists, and stays as it is. If ctx is done, Backup returns its error, and path holds no map but what another
// Backup to it replaces.
func (m *Map[K, V]) Backup(ctx context.Context, path string, progress Progress) error {
	if strings.ContainsRune(path, 0) {
		return &Error{Op: "backup", Path: m.store.path, Code: ErrInvalid, Err: errZeroByte}
	}
	return m.work(ctx, "backup", progress, func(n native, p *nativeProgress) Code { return n.backup(path, p) })
}

// A RecoveryKind is how the index came to be that a map works with.
type RecoveryKind uint32

const (
	RecoveryNone     RecoveryKind = 0 // the map was made with it
	RecoveryKept     RecoveryKind = 1 // rebuilt from a log of which nothing returned was lost
	RecoveryCut      RecoveryKind = 2 // rebuilt as after power loss: the log was cut at a broken record
	RecoveryPrivate  RecoveryKind = 3 // a read-only map built its own: none could be trusted
	RecoverySalvaged RecoveryKind = 4 // Options.Salvage kept what was whole of a damaged map
)

// A Recovery is what the last rebuild of the index has done.
type Recovery struct {
	Kind     RecoveryKind
	Records  uint64 // read from the log
	BytesCut uint64 // left out, because they were not whole or lay behind such
	From     uint64 // address at which the log was cut, or 0
}

// A Stat is what a map tells about itself. Places in the log are addresses: number of the log file << 29 | offset / 8.
type Stat struct {
	MapID               [16]byte // random, made with the map
	Stripes             int      // write locks
	Count               uint64   // entries: exact while nobody is writing
	Slots               uint64   // of the index
	Capacity            uint64   // entries the index has room for as it is
	Tombstones          uint64   // slots that removed keys still take
	LiveBytes           uint64   // records that count: headers, keys and values with padding
	LogBytes            uint64   // the log from Head to Tail
	DeadBytes           uint64   // LogBytes less LiveBytes
	ReservedBytes       uint64   // log files made ready for later
	IndexBytes          uint64   // the index file
	UnlinkedBytes       uint64   // log files this process still maps although they left the map
	Segments            uint64   // log files
	Head, Tail          uint64   // addresses of the oldest record and of the next
	Watermark           uint64   // everything below this address is known to be on disk
	Splits              uint64   // times a part of the index was split
	LockWaits           uint64   // times a writer had to sleep for a lock, since boot
	CompactedBytes      uint64   // that compaction has moved, since boot
	CompactionStoppedAt uint64   // address of a damaged record that compaction will not pass, or 0
	SyncFailed          bool     // every sync fails until Compact has mended it
	Recovery            Recovery
}

// Stat tells about the map. It costs a look at every part of the index.
func (m *Map[K, V]) Stat() (Stat, error) {
	h, err := m.store.take()
	if err != nil {
		return Stat{}, m.store.refused("stat", err)
	}
	defer m.store.give(h)
	stat, code := h.stat()
	if code != OK {
		return Stat{}, m.store.failed("stat", h, code)
	}
	return stat, nil
}
