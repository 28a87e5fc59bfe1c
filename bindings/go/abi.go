//go:build cgo && linux && (amd64 || arm64 || loong64 || ppc64le || riscv64)

package opendiskmap

// What calls C, but for lanes.go. Each call of the C interface has a shim here and a Go function that hides C's types.
//
// The shims look as they do because a cgo call must not allocate and must cost as little as it can: a handle crosses as
// uintptr_t, because cgo keeps pointers to incomplete structs on the heap; bytes cross as char *, because cgo searches a
// void * for Go pointers at every call; what was found is left in the handle, because a Go variable that C writes to would
// move to the heap, and a struct that comes back by value is copied in pieces of 16 bytes, which the processor can read only
// once the 8 bytes that C wrote have left its pipeline. noescape and nocallback are true of every one of them: C keeps none
// of its arguments, and never calls Go.

/*
#cgo noescape odm_go_get
#cgo noescape odm_go_get_lent
#cgo noescape odm_go_put
#cgo noescape odm_go_remove
#cgo noescape odm_go_entry_get
#cgo noescape odm_go_entry_put
#cgo noescape odm_go_entry_remove
#cgo noescape odm_go_get_many
#cgo noescape odm_go_write_many
#cgo noescape odm_go_iter_next_many
#cgo noescape odm_go_refresh
#cgo nocallback odm_go_get
#cgo nocallback odm_go_get_lent
#cgo nocallback odm_go_put
#cgo nocallback odm_go_remove
#cgo nocallback odm_go_entry_get
#cgo nocallback odm_go_entry_put
#cgo nocallback odm_go_entry_remove
#cgo nocallback odm_go_get_many
#cgo nocallback odm_go_write_many
#cgo nocallback odm_go_iter_next_many
#cgo nocallback odm_go_refresh

#define _GNU_SOURCE
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <opendiskmap.h>
#include "direct.h"

typedef struct {
    uintptr_t pointer; // a handle or an iterator
    odm_status status;
} odm_go_opened;

// How many, and why not more.
typedef struct {
    size_t count;
    odm_status status;
} odm_go_done;

enum { ODM_GO_MANY = 256 };

// What Go calls a handle.
typedef struct {
    odm_map *map;
    bool read_only;
    uint32_t calls;
    int64_t tick; // when a read-only handle was refreshed last
    // What the last look-up found.
    const void *value;
    size_t value_size;
    uint64_t version;
    // A Reader's.
    odm_status status;
    odm_go_pace pace;
    // The outputs of a batch or of a step of a walk. Here, because Go's memory is no place for pointers that C stores.
    const void *keys[ODM_GO_MANY];
    uint64_t key_sizes[ODM_GO_MANY];
    const void *values[ODM_GO_MANY];
    uint64_t value_sizes[ODM_GO_MANY];
} odm_go_handle;

static odm_go_handle *odm_go_of(uintptr_t handle)
{
    return (odm_go_handle *)handle;
}

// The clock's tick, some milliseconds long: a few nanoseconds to ask for.
static int64_t odm_go_tick(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// The map of a handle, for a call. By now the slices of earlier calls were copied, or their View is over, so they may end:
// at every 64th call, for a refresh after each would cost as much as a get. A read-only handle looks for a newer index when
// it is refreshed, which it must not miss however seldom it is used, and which is a system call: once a tick.
static odm_map *odm_go_begin(uintptr_t handle)
{
    odm_go_handle *h = odm_go_of(handle);
    if (h->read_only) {
        int64_t tick = odm_go_tick();
        if (tick != h->tick) odm_refresh(h->map);
        h->tick = tick;
    } else if (++h->calls % 64 == 0) {
        odm_refresh(h->map);
    }
    return h->map;
}

static odm_status odm_go_refresh(uintptr_t handle)
{
    return odm_refresh(odm_go_of(handle)->map);
}

// What earlier calls gave out stays. paced: others of this Reader are direct calls.
static odm_status odm_go_get_lent(uintptr_t handle, const char *key, size_t key_size, bool paced)
{
    odm_go_handle *h = odm_go_of(handle);
    if (paced) (void)odm_go_not_direct(&h->pace);
    odm_status status = odm_get(h->map, key, key_size, &h->value, &h->value_size);
    if (status == ODM_OK) odm_go_fetch(h->value, h->value_size);
    return status;
}

// odm_go_get_lent by a direct call, where nothing of it takes long; else the status is ODM_WOULD_BLOCK.
static odm_go_handle *odm_go_try_get_lent(odm_go_handle *h, const char *key, size_t key_size)
{
    h->status = odm_go_try_get(&h->pace, h->map, key, key_size, &h->value, &h->value_size);
    return h;
}

static void *odm_go_try_get_lent_address(void)
{
    return (void *)odm_go_try_get_lent;
}

static odm_status odm_go_get(uintptr_t handle, const char *key, size_t key_size)
{
    odm_go_begin(handle);
    return odm_go_get_lent(handle, key, key_size, false);
}

static odm_status odm_go_put(uintptr_t handle, const char *key, size_t key_size, const char *value, size_t value_size)
{
    return odm_put(odm_go_begin(handle), key, key_size, value, value_size);
}

static odm_status odm_go_remove(uintptr_t handle, const char *key, size_t key_size)
{
    return odm_remove(odm_go_begin(handle), key, key_size);
}

static odm_status odm_go_entry_get(uintptr_t handle, const char *key, size_t key_size)
{
    odm_go_handle *h = odm_go_of(handle);
    odm_status status = odm_entry_get(odm_go_begin(handle), key, key_size, &h->value, &h->value_size, &h->version);
    if (status == ODM_OK) odm_go_fetch(h->value, h->value_size);
    return status;
}

static odm_status odm_go_entry_put(uintptr_t handle, const char *key, size_t key_size, const char *value,
                                   size_t value_size, uint64_t version)
{
    return odm_entry_put(odm_go_begin(handle), key, key_size, value, value_size, version);
}

static odm_status odm_go_entry_remove(uintptr_t handle, const char *key, size_t key_size, uint64_t version)
{
    return odm_entry_remove(odm_go_begin(handle), key, key_size, version);
}

static odm_go_done odm_go_get_many(uintptr_t handle, size_t count, const char *keys, const uint64_t *key_ends)
{
    odm_go_handle *h = odm_go_of(handle);
    odm_go_done done = {.count = count};
    done.status = odm_get_many(odm_go_begin(handle), &done.count, keys, key_ends, h->values, h->value_sizes);
    return done;
}

static odm_go_done odm_go_write_many(uintptr_t handle, size_t count, const uint8_t *ops, const char *keys,
                                     const uint64_t *key_ends, const char *values, const uint64_t *value_ends,
                                     uint8_t *outcomes)
{
    odm_go_done done = {.count = count};
    done.status = odm_write_many(odm_go_begin(handle), &done.count, ops, keys, key_ends, values, value_ends, outcomes);
    return done;
}

// Makes a handle of what odm_open or odm_dup gave.
static odm_go_opened odm_go_wrap(odm_status status, odm_map *map, bool read_only, odm_error *error)
{
    odm_go_opened opened = {.status = status};
    if (status != ODM_OK) return opened;
    odm_go_handle *h = calloc(1, sizeof *h);
    if (h == NULL) {
        odm_close(map);
        opened.status = error->status = ODM_E_NO_MEMORY;
        return opened;
    }
    // Now, so that the dynamic linker need not look for it in a direct call, by this handle or a lane.
    (void)odm_try_get(map, NULL, 0, NULL, NULL);
    h->map = map;
    h->read_only = read_only;
    opened.pointer = (uintptr_t)h;
    return opened;
}

static odm_go_opened odm_go_open(const char *path, uint32_t flags, uint64_t capacity, uint64_t capacity_bytes,
                                 uint32_t stripes, uint32_t file_mode, uint32_t wait_ms, const char *schema,
                                 size_t schema_size, odm_error *error)
{
    odm_options options = ODM_OPTIONS_INIT;
    odm_map *map = NULL;
    options.flags = flags;
    options.capacity = capacity;
    options.capacity_bytes = capacity_bytes;
    options.stripes = stripes;
    options.file_mode = file_mode;
    options.wait_ms = wait_ms;
    options.schema = schema;
    options.schema_size = schema_size;
    odm_status status = odm_open(path, &options, &map, error);
    return odm_go_wrap(status, map, (flags & ODM_READ_ONLY) != 0, error);
}

static odm_go_opened odm_go_dup(uintptr_t handle, odm_error *error)
{
    odm_map *map = NULL;
    odm_status status = odm_dup(odm_go_of(handle)->map, &map, error);
    return odm_go_wrap(status, map, odm_go_of(handle)->read_only, error);
}

static odm_status odm_go_close(uintptr_t handle)
{
    odm_status status = odm_close(odm_go_of(handle)->map);
    free(odm_go_of(handle));
    return status;
}

static void odm_go_last_error(uintptr_t handle, odm_error *error)
{
    odm_last_error(odm_go_of(handle)->map, error);
}

static uint64_t odm_go_count(uintptr_t handle)
{
    return odm_count(odm_go_of(handle)->map);
}

static odm_status odm_go_stat(uintptr_t handle, odm_statistics *statistics)
{
    return odm_stat(odm_go_of(handle)->map, statistics);
}

static odm_status odm_go_schema(uintptr_t handle)
{
    odm_go_handle *h = odm_go_of(handle);
    return odm_schema(h->map, &h->value, &h->value_size);
}

static odm_status odm_go_clear(uintptr_t handle)
{
    return odm_clear(odm_go_of(handle)->map, NULL);
}

static odm_status odm_go_sync(uintptr_t handle)
{
    return odm_sync(odm_go_of(handle)->map, NULL);
}

static odm_status odm_go_compact(uintptr_t handle, odm_progress *progress)
{
    return odm_compact(odm_go_of(handle)->map, progress, NULL);
}

static odm_status odm_go_verify(uintptr_t handle, odm_report *report, odm_progress *progress)
{
    return odm_verify(odm_go_of(handle)->map, report, progress, NULL);
}

static odm_status odm_go_backup(uintptr_t handle, const char *path, odm_progress *progress)
{
    return odm_backup(odm_go_of(handle)->map, path, progress, NULL);
}

static odm_go_opened odm_go_iter_open(uintptr_t handle, uint64_t position)
{
    odm_iter *iter = NULL;
    odm_go_opened opened = {0};
    opened.status = odm_iter_open(odm_go_of(handle)->map, &iter);
    if (opened.status == ODM_OK) opened.status = odm_iter_seek(iter, position);
    opened.pointer = (uintptr_t)iter;
    return opened;
}

// The last slices of an iterator outlive a refresh, until the next call on it.
static odm_go_done odm_go_iter_next_many(uintptr_t handle, uintptr_t iter)
{
    odm_go_handle *h = odm_go_of(handle);
    odm_go_done done = {.count = ODM_GO_MANY};
    odm_refresh(h->map);
    done.status =
        odm_iter_next_many((odm_iter *)iter, &done.count, h->keys, h->key_sizes, h->values, h->value_sizes);
    return done;
}

static uint64_t odm_go_iter_position(uintptr_t iter)
{
    uint64_t position = 0;
    odm_iter_position((odm_iter *)iter, &position);
    return position;
}

static void odm_go_iter_close(uintptr_t iter)
{
    odm_iter_close((odm_iter *)iter);
}
*/
import "C"

import (
	"syscall"
	"unsafe"

	"opendiskmap.example/opendiskmap/internal/direct"
)

// manyMax is the number of entries that cross in one call of GetMany or of a walk.
const manyMax = C.ODM_GO_MANY

// The flags of odm_open, the operations of odm_write_many, the size of an odm_slice.
const (
	flagReadOnly      = C.ODM_READ_ONLY
	flagMustExist     = C.ODM_MUST_EXIST
	flagMustCreate    = C.ODM_MUST_CREATE
	flagVerifyReads   = C.ODM_VERIFY_READS
	flagAnyFileSystem = C.ODM_ANY_FILE_SYSTEM
	flagSalvage       = C.ODM_SALVAGE

	opPut    = C.ODM_OP_PUT
	opInsert = C.ODM_OP_INSERT
	opRemove = C.ODM_OP_REMOVE

	sliceHeaderSize = C.sizeof_odm_slice
)

// The kinds are C's, or this does not compile.
var _ = [...][1]struct{}{
	RecoveryNone:     {RecoveryNone - C.ODM_RECOVERY_NONE: {}},
	RecoveryKept:     {RecoveryKept - C.ODM_RECOVERY_KEPT: {}},
	RecoveryCut:      {RecoveryCut - C.ODM_RECOVERY_CUT: {}},
	RecoveryPrivate:  {RecoveryPrivate - C.ODM_RECOVERY_PRIVATE: {}},
	RecoverySalvaged: {RecoverySalvaged - C.ODM_RECOVERY_SALVAGED: {}},
}

// A span is bytes that C reads during a call: in Go's memory, without pointers in them.
type span struct {
	start *byte
	size  int
}

func spanOf(b []byte) span { return span{unsafe.SliceData(b), len(b)} }

func (s span) c() *C.char  { return (*C.char)(unsafe.Pointer(s.start)) }
func (s span) n() C.size_t { return C.size_t(s.size) }

// A native is C's half of a handle: a handle of the C interface, and room for what it gives out.
type native struct {
	c   C.uintptr_t
	out *C.odm_go_handle
}

func nativeOf(opened C.odm_go_opened) native {
	return native{opened.pointer, C.odm_go_of(opened.pointer)}
}

// A slice of the map is valid until the next call on its handle.

func (n native) get(key span) (value []byte, code Code) {
	if code = Code(C.odm_go_get(n.c, key.c(), key.n())); code == OK {
		value = n.found()
	}
	return value, code
}

// getLent is get, but the slices of earlier calls stay valid, until the next refresh. paced: it is called where tryGet would block.
func (n native) getLent(key span, paced bool) Code {
	return Code(C.odm_go_get_lent(n.c, key.c(), key.n(), C.bool(paced)))
}

// tryGet is getLent by a direct call, for maps that have lanes; wouldBlock where only getLent will do.
func (n native) tryGet(key span) Code {
	direct.Call(tryGetLent, unsafe.Pointer(n.out), unsafe.Pointer(key.start), key.size)
	return Code(n.out.status)
}

var tryGetLent = C.odm_go_try_get_lent_address()

// found is the value that the last look-up found.
func (n native) found() []byte { return unsafe.Slice((*byte)(n.out.value), int(n.out.value_size)) }

func (n native) put(key, value span) Code {
	return Code(C.odm_go_put(n.c, key.c(), key.n(), value.c(), value.n()))
}

func (n native) remove(key span) Code { return Code(C.odm_go_remove(n.c, key.c(), key.n())) }

func (n native) entryGet(key span) (value []byte, version uint64, code Code) {
	if code = Code(C.odm_go_entry_get(n.c, key.c(), key.n())); code == OK {
		value, version = n.found(), uint64(n.out.version)
	}
	return value, version, code
}

func (n native) entryPut(key, value span, version uint64) Code {
	return Code(C.odm_go_entry_put(n.c, key.c(), key.n(), value.c(), value.n(), C.uint64_t(version)))
}

func (n native) entryRemove(key span, version uint64) Code {
	return Code(C.odm_go_entry_remove(n.c, key.c(), key.n(), C.uint64_t(version)))
}

// getMany looks up to manyMax packed keys up; their values are value(i).
func (n native) getMany(keys []byte, ends []uint64) (count int, code Code) {
	done := C.odm_go_get_many(n.c, C.size_t(len(ends)), spanOf(keys).c(), (*C.uint64_t)(unsafe.SliceData(ends)))
	return int(done.count), Code(done.status)
}

// value is number i of the last getMany or nextMany, ok false if its key is absent.
func (n native) value(i int) (value []byte, ok bool) {
	size := n.out.value_sizes[i]
	if size == C.UINT64_MAX {
		return nil, false
	}
	return unsafe.Slice((*byte)(n.out.values[i]), int(size)), true
}

// key is number i of the last nextMany.
func (n native) key(i int) []byte {
	return unsafe.Slice((*byte)(n.out.keys[i]), int(n.out.key_sizes[i]))
}

// writeMany does len(ops) operations; outcomes has room for as many.
func (n native) writeMany(ops, keys []byte, keyEnds []uint64, values []byte, valueEnds []uint64,
	outcomes []byte) (count int, code Code) {
	done := C.odm_go_write_many(n.c, C.size_t(len(ops)), (*C.uint8_t)(unsafe.SliceData(ops)),
		spanOf(keys).c(), (*C.uint64_t)(unsafe.SliceData(keyEnds)),
		spanOf(values).c(), (*C.uint64_t)(unsafe.SliceData(valueEnds)), (*C.uint8_t)(unsafe.SliceData(outcomes)))
	return int(done.count), Code(done.status)
}

func (n native) refresh() Code { return Code(C.odm_go_refresh(n.c)) }
func (n native) close() Code   { return Code(C.odm_go_close(n.c)) }
func (n native) count() uint64 { return uint64(C.odm_go_count(n.c)) }
func (n native) clear() Code   { return Code(C.odm_go_clear(n.c)) }
func (n native) sync() Code    { return Code(C.odm_go_sync(n.c)) }

func (n native) schema() (schema string, code Code) {
	if code = Code(C.odm_go_schema(n.c)); code == OK {
		schema = string(n.found())
	}
	return schema, code
}

// ---- opening ------------------------------------------------------------------------------------------------------

// nativeOpen opens the map at path; path nil: one in memory. schema empty: any.
func nativeOpen(path *string, o *Options, flags uint32, waitMs uint32, schema string) (native, error) {
	var cPath *C.char
	name := ""
	if path != nil {
		name = *path
		cPath = C.CString(name)
		defer C.free(unsafe.Pointer(cPath))
	}
	if major := C.odm_version() / 10000; major != C.ODM_VERSION_MAJOR {
		return native{}, &Error{Op: "open", Path: name, Code: ErrVersion, Message: "the library that is loaded is " +
			C.GoString(C.odm_version_string()) + ", this package was built for " + C.ODM_VERSION_STRING}
	}
	detail := C.odm_error{struct_size: C.sizeof_odm_error}
	var schemaBytes *C.char
	if schema != "" {
		schemaBytes = (*C.char)(unsafe.Pointer(unsafe.StringData(schema)))
	}
	opened := C.odm_go_open(cPath, C.uint32_t(flags), C.uint64_t(o.Capacity), C.uint64_t(o.CapacityBytes),
		C.uint32_t(o.Stripes), C.uint32_t(o.FileMode), C.uint32_t(waitMs), schemaBytes, C.size_t(len(schema)), &detail)
	if opened.status != C.ODM_OK {
		return native{}, errorOf("open", name, Code(opened.status), &detail)
	}
	return nativeOf(opened), nil
}

func (n native) dup(path string) (native, error) {
	detail := C.odm_error{struct_size: C.sizeof_odm_error}
	opened := C.odm_go_dup(n.c, &detail)
	if opened.status != C.ODM_OK {
		return native{}, errorOf("open another handle", path, Code(opened.status), &detail)
	}
	return nativeOf(opened), nil
}

// ---- errors -------------------------------------------------------------------------------------------------------

// errorOf makes an Error of the detail that came with a status. An ordinary outcome has none.
func errorOf(op, path string, code Code, detail *C.odm_error) *Error {
	e := &Error{Op: op, Path: path, Code: code}
	if Code(detail.status) == code {
		e.Errno = syscall.Errno(detail.os_errno)
		e.Message = C.GoString(&detail.message[0])
	}
	return e
}

// failed makes an Error of a status that a call on this handle has just returned.
func (n native) failed(op, path string, code Code) *Error {
	detail := C.odm_error{struct_size: C.sizeof_odm_error}
	C.odm_go_last_error(n.c, &detail)
	return errorOf(op, path, code, &detail)
}

func codeName(c Code) string    { return C.GoString(C.odm_status_name(C.odm_status(c))) }
func codeMessage(c Code) string { return C.GoString(C.odm_status_message(C.odm_status(c))) }

// ---- walking ------------------------------------------------------------------------------------------------------

// A nativeIter is a walk of a handle.
type nativeIter struct {
	native
	iter C.uintptr_t
}

func (n native) iterate(from Position) (nativeIter, Code) {
	opened := C.odm_go_iter_open(n.c, C.uint64_t(from))
	return nativeIter{n, opened.pointer}, Code(opened.status)
}

// nextMany gets the next entries: key(i) and value(i), up to count.
func (i nativeIter) nextMany() (count int, code Code) {
	done := C.odm_go_iter_next_many(i.c, i.iter)
	return int(done.count), Code(done.status)
}

func (i nativeIter) position() Position { return Position(C.odm_go_iter_position(i.iter)) }
func (i nativeIter) end()               { C.odm_go_iter_close(i.iter) }

// ---- the map as a whole -------------------------------------------------------------------------------------------

// A nativeProgress is long work on its way.
type nativeProgress struct{ c C.odm_progress }

func newNativeProgress(stepMs uint32) *nativeProgress {
	return &nativeProgress{C.odm_progress{struct_size: C.sizeof_odm_progress, max_ms: C.uint32_t(stepMs)}}
}

func (p *nativeProgress) done() (done, total uint64) { return uint64(p.c.done), uint64(p.c.total) }

func (n native) compact(p *nativeProgress) Code { return Code(C.odm_go_compact(n.c, &p.c)) }

func (n native) backup(path string, p *nativeProgress) Code {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	return Code(C.odm_go_backup(n.c, cPath, &p.c))
}

// A nativeReport is what a verification has found so far.
type nativeReport struct{ c C.odm_report }

func newNativeReport() *nativeReport {
	return &nativeReport{C.odm_report{struct_size: C.sizeof_odm_report}}
}

func (n native) verify(r *nativeReport, p *nativeProgress) Code {
	return Code(C.odm_go_verify(n.c, &r.c, &p.c))
}

func (r *nativeReport) report() Report {
	return Report{
		Records:    uint64(r.c.records),
		Bytes:      uint64(r.c.bytes),
		BadRecords: uint64(r.c.bad_records),
		BadSlots:   uint64(r.c.bad_slots),
		BadNumber:  uint64(r.c.bad_number),
		BadOffset:  uint64(r.c.bad_offset),
	}
}

func (n native) stat() (Stat, Code) {
	s := C.odm_statistics{struct_size: C.sizeof_odm_statistics}
	if code := Code(C.odm_go_stat(n.c, &s)); code != OK {
		return Stat{}, code
	}
	stat := Stat{
		Stripes:             int(s.stripes),
		Count:               uint64(s.count),
		Slots:               uint64(s.slots),
		Capacity:            uint64(s.capacity),
		Tombstones:          uint64(s.tombstones),
		LiveBytes:           uint64(s.live_bytes),
		LogBytes:            uint64(s.log_bytes),
		DeadBytes:           uint64(s.dead_bytes),
		ReservedBytes:       uint64(s.reserved_bytes),
		IndexBytes:          uint64(s.index_bytes),
		UnlinkedBytes:       uint64(s.unlinked_bytes),
		Segments:            uint64(s.segments),
		Head:                uint64(s.head),
		Tail:                uint64(s.tail),
		Watermark:           uint64(s.watermark),
		Splits:              uint64(s.splits),
		LockWaits:           uint64(s.lock_waits),
		CompactedBytes:      uint64(s.compacted_bytes),
		CompactionStoppedAt: uint64(s.compaction_stopped_at),
		SyncFailed:          s.sync_failed != 0,
		Recovery: Recovery{
			Kind:     RecoveryKind(s.recovery_kind),
			Records:  uint64(s.recovery_records),
			BytesCut: uint64(s.recovery_bytes_cut),
			From:     uint64(s.recovery_from),
		},
	}
	for i := range stat.MapID {
		stat.MapID[i] = byte(s.map_id[i])
	}
	return stat, OK
}
