// Command bench measures Shoal's daemons beside Debian's Dovecot, Postfix and slapd in one run, on one
// machine, with the same load, and prints ratios.
//
// What is compared is CPU time of the whole process tree of each server (from its control group, so that
// processes which came and went are counted), memory of the whole tree (proportional set size), and the
// number of write barriers that reached the disk. The load generator is the same program for both sides and
// is not counted. Ratios within one run hold when the machine's speed drifts; absolute figures do not.
//
// Left out on purpose: verdicts. A bar that is missed is printed like one that is met.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// A suite measures one thing on Shoal and on its peer.
type suite struct {
	name, what string
	run        func(*bench) ([]row, error)
}

// A row is one line of the table: one server under one load.
type row struct {
	Suite  string             `json:"suite"`
	Server string             `json:"server"`
	Load   string             `json:"load"`
	Values map[string]float64 `json:"values"` // by column name, which carries the unit
	Note   string             `json:"note,omitempty"`
}

// bench is what the suites share: where things lie, how large the load is, what has to be ended.
type bench struct {
	bin      string // folder with the built daemons
	dir      string // scratch folder, on the file system to be measured
	messages int
	entries  int
	idle     int
	listed   int
	sessions int
	diskStat string // statistics of the disk that dir is on, when it has one of its own
	cleanups []func()
}

func (b *bench) atExit(f func()) { b.cleanups = append(b.cleanups, f) }

func (b *bench) close() {
	for i := len(b.cleanups) - 1; i >= 0; i-- {
		b.cleanups[i]()
	}
	b.cleanups = nil
}

func main() { os.Exit(run()) }

func run() int {
	suites := []suite{
		{"lmtp", "LMTP delivery of 4 KB messages, durable: boxd beside Dovecot with Maildir", benchLMTP},
		{"pop", "POP3 retrieval of 4 KB messages: boxd beside Dovecot with Maildir", benchPOP},
		{"sieve", "CPU of a Sieve script of 20 rules on a message of 4 KB", benchSieve},
		{"smtp", "SMTP accept and deliver to one LMTP sink: switchd beside Postfix", benchSMTP},
		{"ldap", "LDAP equality search: vaultd beside slapd with mdb", benchLDAP},
		{"lists", "IMAP lists of a large mailbox, per message: boxd beside Dovecot with Maildir", benchLists},
		{"idle", "memory of an idle IMAP connection: boxd beside Dovecot", benchIdle},
	}
	b := &bench{}
	only := flag.String("only", "", "comma-separated suites to run (default: all)")
	fsKind := flag.String("fs", "ext4", "fresh file system to measure on, in an image: ext4, xfs, or none for the scratch folder itself")
	asJSON := flag.Bool("json", false, "print the rows as JSON")
	flag.StringVar(&b.bin, "bin", "bin", "folder with the built daemons")
	flag.StringVar(&b.dir, "dir", "", "scratch folder on the file system to measure (default: a new one beside bin)")
	flag.IntVar(&b.messages, "messages", 4000, "messages per mail run")
	flag.IntVar(&b.entries, "entries", 100000, "entries in the directory")
	flag.IntVar(&b.idle, "idle", 3000, "idle IMAP connections to boxd (a tenth of it to Dovecot)")
	flag.IntVar(&b.listed, "listed", 10000, "messages in the mailbox that is listed, a multiple of 200")
	flag.IntVar(&b.sessions, "sessions", 8, "concurrent sessions of the mail runs")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "bench [flags]: measure Shoal beside Debian's Dovecot, Postfix and slapd. Needs root and those packages.")
		flag.PrintDefaults()
		for _, s := range suites {
			fmt.Fprintf(flag.CommandLine.Output(), "  suite %-5s %s\n", s.name, s.what)
		}
	}
	flag.Parse()
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: run it as root: Postfix and Dovecot start as root, and control groups are made for the measurement")
		return 2
	}
	abs, err := filepath.Abs(b.bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	b.bin = abs
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp(filepath.Dir(abs), "bench-"); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 2
		}
		dir := b.dir
		b.atExit(func() { os.RemoveAll(dir) })
	}
	defer b.close()
	switch *fsKind {
	case "ext4", "xfs":
		err = b.freshDisk(*fsKind)
	case "none":
		err = os.Chmod(b.dir, 0o755)
	default:
		err = fmt.Errorf("-fs %s: choose ext4, xfs or none", *fsKind)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-stop; b.close(); os.Exit(130) }()

	wanted := map[string]bool{}
	for _, n := range strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }) {
		wanted[n] = true
	}
	var rows []row
	failed := 0
	for _, s := range suites {
		if len(wanted) > 0 && !wanted[s.name] {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s: %s\n", s.name, s.what)
		r, err := s.run(b)
		for i := range r {
			r[i].Suite = s.name
		}
		rows = append(rows, r...)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", s.name, err)
			failed++
		}
		if !*asJSON {
			printRows(os.Stdout, r)
		}
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(rows); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	if failed > 0 {
		return 1
	}
	return 0
}

// printRows prints a table, and for every column the ratio of Shoal (first row of a load) to its peer.
func printRows(w *os.File, rows []row) {
	byLoad := map[string][]row{}
	var order []string
	for _, r := range rows {
		if _, ok := byLoad[r.Load]; !ok {
			order = append(order, r.Load)
		}
		byLoad[r.Load] = append(byLoad[r.Load], r)
	}
	for _, load := range order {
		rs := byLoad[load]
		var cols []string
		seen := map[string]bool{}
		for _, r := range rs {
			for c := range r.Values {
				if !seen[c] {
					seen[c] = true
					cols = append(cols, c)
				}
			}
		}
		sort.Strings(cols)
		fmt.Fprintf(w, "\n### %s\n\n| server |", load)
		for _, c := range cols {
			fmt.Fprintf(w, " %s |", c)
		}
		fmt.Fprint(w, "\n|---|"+strings.Repeat("---:|", len(cols))+"\n")
		for _, r := range rs {
			fmt.Fprintf(w, "| %s |", r.Server)
			for _, c := range cols {
				if v, ok := r.Values[c]; ok {
					fmt.Fprintf(w, " %s |", short(v))
				} else {
					fmt.Fprint(w, " |")
				}
			}
			fmt.Fprintln(w)
		}
		if len(rs) >= 2 {
			fmt.Fprintf(w, "| **%s / %s** |", rs[0].Server, rs[1].Server)
			for _, c := range cols {
				a, okA := rs[0].Values[c]
				z, okZ := rs[1].Values[c]
				if okA && okZ && z != 0 {
					fmt.Fprintf(w, " **%s** |", short(a/z))
				} else {
					fmt.Fprint(w, " |")
				}
			}
			fmt.Fprintln(w)
		}
		for _, r := range rs {
			if r.Note != "" {
				fmt.Fprintf(w, "\n%s: %s\n", r.Server, r.Note)
			}
		}
	}
}

func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
