package opendiskmap

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// supported skips a test of what the library that is linked can not do yet.
func supported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrUnsupported) {
		t.Skip("not in this version of the library: ", err)
	}
	must(t, err)
}

// counted is a Progress that sees to it that what it is told makes sense.
func counted(t *testing.T) (Progress, *int) {
	calls, last := 0, uint64(0)
	return func(done, total uint64) {
		if done < last || done > total {
			t.Errorf("%d of %d done, after %d", done, total, last)
		}
		last = done
		calls++
	}, &calls
}

// overwritten is a map whose log is mostly dead.
func overwritten(t *testing.T) *Map[uint64, string] {
	m := fresh(t, U64, Str)
	for range 20 {
		for k := range uint64(500) {
			must(t, m.Put(k, strings.Repeat("v", 200)))
		}
	}
	return m
}

func TestCompactGivesRoomBack(t *testing.T) {
	m := overwritten(t)
	before, err := m.Stat()
	must(t, err)
	progress, calls := counted(t)
	supported(t, m.Compact(t.Context(), progress))
	after, err := m.Stat()
	must(t, err)
	if after.DeadBytes >= before.DeadBytes || *calls == 0 {
		t.Fatal(before.DeadBytes, after.DeadBytes, *calls)
	}
	want(t, nil, m.Len(), 500)
	v, _, err := m.Get(7)
	want(t, err, v, strings.Repeat("v", 200))
}

func TestVerifyFindsNothingInASoundMap(t *testing.T) {
	m := overwritten(t)
	progress, calls := counted(t)
	report, err := m.Verify(t.Context(), progress)
	supported(t, err)
	if report.Records < 500 || report.Bytes == 0 || report.BadRecords != 0 || report.BadSlots != 0 || *calls == 0 {
		t.Fatal(report, *calls)
	}
}

func TestVerifyFindsADamagedRecord(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, U64, Str)
	must(t, m.Put(1, strings.Repeat("needle", 10)))
	must(t, m.Sync(t.Context()))
	segments, err := filepath.Glob(filepath.Join(path, "log", "*"))
	must(t, err)
	for _, segment := range segments {
		text, err := os.ReadFile(segment)
		must(t, err)
		at := strings.Index(string(text), "needleneedle")
		if at < 0 {
			continue
		}
		file, err := os.OpenFile(segment, os.O_WRONLY, 0)
		must(t, err)
		_, err = file.WriteAt([]byte("N"), int64(at))
		must(t, errors.Join(err, file.Close()))
	}
	report, err := m.Verify(t.Context(), nil)
	if errors.Is(err, ErrUnsupported) {
		t.Skip("not in this version of the library: ", err)
	}
	if report.BadRecords != 1 || !errors.Is(err, ErrCorrupt) {
		t.Fatal(report, err)
	}
}

func TestABackupIsAMap(t *testing.T) {
	m := overwritten(t)
	path := directory(t)
	progress, calls := counted(t)
	supported(t, m.Backup(t.Context(), path, progress))
	want(t, nil, *calls > 0, true)
	copied := reopen(t, path, U64, Str)
	want(t, nil, copied.Len(), m.Len())
	v, _, err := copied.Get(499)
	want(t, err, v, strings.Repeat("v", 200))
}

func TestABackupLeavesAMapThatIsThere(t *testing.T) {
	m := overwritten(t)
	other := directory(t)
	must(t, reopen(t, other, Str, Str).Put("key", "value"))
	for _, path := range []string{other, m.Path()} {
		// A context, or a call that never ends would not be seen to be one.
		ctx, cancel := context.WithCancel(t.Context())
		err := m.Backup(ctx, path, func(uint64, uint64) { cancel() })
		cancel()
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), path+" is a map already") {
			t.Fatal(err)
		}
	}
	value, _, err := reopen(t, other, Str, Str).Get("key")
	want(t, err, value, "value")
	want(t, nil, m.Len(), 500)
	if err := m.Backup(t.Context(), other+"\x00.copy", nil); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestLongWorkEndsWhenItsContextIsDone(t *testing.T) {
	m := overwritten(t)
	for name, work := range map[string]func(context.Context, Progress) error{
		"compact": m.Compact,
		"verify":  func(ctx context.Context, p Progress) error { _, err := m.Verify(ctx, p); return err },
		"backup":  func(ctx context.Context, p Progress) error { return m.Backup(ctx, directory(t), p) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			err := work(ctx, func(uint64, uint64) { calls++; cancel() })
			if errors.Is(err, ErrUnsupported) {
				t.Skip("not in this version of the library: ", err)
			}
			// It may have been finished by its first step.
			if calls != 1 || (err != nil && !errors.Is(err, context.Canceled)) {
				t.Fatal(calls, err)
			}
			// Nothing is left of it that would be in somebody's way.
			_, err = m.Verify(t.Context(), nil)
			supported(t, err)
			want(t, nil, m.Len(), 500)
		})
	}
}
