// bench - the Go binding beside other stores of Go programs, and beside a built-in map. README.md says how to read it.
//
//	go run . [-n 1000000] [-rounds 3] [-engines odm,lmdb,...] [-dir /tmp] [-cpu] [-warm 2048]
//
// Every engine runs in a process of its own, one at a time; they take turns within a round.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A row is an operation that is timed: all of d's entries once.
type row struct {
	name string
	run  func(e engine, d *data)
	ours bool // others have no such operation
}

const putMany = "put, 64 a call" // Into another new map.

var rows = []row{
	{name: "put", run: func(e engine, d *data) { e.load(d.keys, d.values) }},
	{name: putMany, ours: true, run: func(e engine, d *data) { e.(ourEngine).loadMany(d.keys, d.values) }},
	{name: "get in place", run: func(e engine, d *data) { d.check(e.gets(d.order)) }},
	{name: "get in place, a View each", ours: true, run: func(e engine, d *data) { d.check(e.(ourEngine).views(d.order)) }},
	{name: "get in place, 2 goroutines", run: func(e engine, d *data) { d.check(twice(d.order, e.gets)) }},
	{name: "get a copy", run: func(e engine, d *data) { d.check(e.copies(d.order)) }},
	{name: "get a copy, 64 a call", ours: true, run: func(e engine, d *data) { d.check(e.(ourEngine).many(d.order)) }},
	{name: "get of an absent key", run: func(e engine, d *data) { d.none(e.gets(d.absent)) }},
	{name: "iterate", run: func(e engine, d *data) { d.check(e.iterate()) }},
}

// twice shares the keys between two goroutines.
func twice(keys []string, gets func([]string) sum) sum {
	var sums [2]sum
	var group sync.WaitGroup
	half := len(keys) / 2
	for i, part := range [][]string{keys[:half], keys[half:]} {
		group.Add(1)
		go func() {
			defer group.Done()
			sums[i] = gets(part)
		}()
	}
	group.Wait()
	return sums[0] + sums[1]
}

// passesAtLeast is how long a read is repeated: the best pass counts.
const passesAtLeast = time.Second

// clock is the time that counts: the wall's, or, on a machine that others use as well, what the processors have spent on this
// process, its helpers' threads and the kernel's part included. Of two goroutines that run at once it is twice the wall's.
func clock(cpu bool) time.Duration {
	if !cpu {
		return time.Since(began)
	}
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

var began = time.Now()

// worker measures one engine, and prints nanoseconds an entry by row.
func worker(name, dir string, n int, cpu bool, only string) {
	d := makeData(n)
	first := engines[name]()
	first.open(makeDir(dir, "first"))
	result := map[string]float64{}
	for _, r := range rows {
		if _, isOurs := first.(ourEngine); r.ours && !isOurs {
			continue
		}
		if r.name != "put" && !strings.HasPrefix(r.name, only) {
			continue
		}
		e := first
		if r.name == putMany {
			e = engines[name]()
			e.open(makeDir(dir, "second"))
		}
		runtime.GC()
		best := time.Duration(0)
		for began := time.Now(); best == 0 || (!strings.HasPrefix(r.name, "put") && time.Since(began) < passesAtLeast); {
			start := clock(cpu)
			r.run(e, d)
			if took := clock(cpu) - start; best == 0 || took < best {
				best = took
			}
		}
		result[r.name] = float64(best.Nanoseconds()) / float64(n)
		if e != first {
			e.close()
		}
	}
	first.close()
	check(json.NewEncoder(os.Stdout).Encode(result))
}

// warm has the kernel own that much memory when the engine asks for it. A virtual machine gives memory that was free for a while
// back to its host, and a page that comes from there costs several microseconds, whoever touches it first: more than a put.
func warm(dir string, mib int) {
	file, err := os.CreateTemp(dir, "odm_bench_go_warm.")
	check(err)
	defer os.Remove(file.Name())
	defer file.Close()
	zeros := make([]byte, 1<<20)
	for range mib {
		_, err := file.Write(zeros)
		check(err)
	}
}

func makeDir(parent, name string) string {
	dir := filepath.Join(parent, name)
	check(os.Mkdir(dir, 0o755))
	return dir
}

func main() {
	n := flag.Int("n", 1_000_000, "entries")
	rounds := flag.Int("rounds", 3, "medians are taken over them")
	names := flag.String("engines", "odm,lmdb,bbolt,badger,pebble,map", "the others are compared with the first")
	dir := flag.String("dir", os.TempDir(), "the maps are made in fresh directories there, and removed")
	cpu := flag.Bool("cpu", false, "count processor time, not the wall's")
	warmMiB := flag.Int("warm", 2048, "MiB of a file that is written and removed before each engine's turn, so that its memory is the machine's")
	only := flag.String("only", "", "only rows whose names begin so, and put")
	work := flag.String("worker", "", "measure this engine in -dir; for the program itself")
	flag.Parse()
	log.SetFlags(0)
	if *work != "" {
		worker(*work, *dir, *n, *cpu, *only)
		return
	}
	chosen := strings.Split(*names, ",")
	results := map[string][]map[string]float64{}
	for round := range *rounds {
		for _, name := range chosen {
			if engines[name] == nil {
				log.Fatalf("no engine %q", name)
			}
			fresh, err := os.MkdirTemp(*dir, "odm_bench_go.")
			check(err)
			warm(fresh, *warmMiB)
			fmt.Fprintf(os.Stderr, "round %d: %s\n", round+1, name)
			cmd := exec.Command(os.Args[0], "-worker", name, "-dir", fresh, "-n", fmt.Sprint(*n), fmt.Sprint("-cpu=", *cpu),
				"-only", *only)
			cmd.Stderr = os.Stderr
			output, err := cmd.Output()
			os.RemoveAll(fresh)
			check(err)
			var result map[string]float64
			check(json.Unmarshal(output, &result))
			fmt.Fprintf(os.Stderr, "%s", output)
			results[name] = append(results[name], result)
		}
	}
	unit := map[bool]string{false: "ns", true: "ns of processor time"}[*cpu]
	fmt.Printf("%d entries, medians of %d rounds, %s an entry; in brackets: times the first\n\n", *n, *rounds, unit)
	fmt.Printf("| |%s\n|---|%s\n", strings.Join(chosen, "|")+"|", strings.Repeat("---:|", len(chosen)))
	for _, r := range rows {
		if _, measured := results[chosen[0]][0][r.name]; !measured {
			continue
		}
		fmt.Printf("| %s |", r.name)
		first := 0.0
		for i, name := range chosen {
			m := median(results[name], r.name)
			if i == 0 {
				first = m
				fmt.Printf(" %.0f |", m)
			} else if m == 0 {
				fmt.Printf(" |")
			} else {
				fmt.Printf(" %.0f (%.2f) |", m, m/first)
			}
		}
		fmt.Println()
	}
}

func median(results []map[string]float64, row string) float64 {
	var all []float64
	for _, r := range results {
		all = append(all, r[row])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
