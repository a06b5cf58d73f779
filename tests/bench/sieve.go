package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

var sieveLine = regexp.MustCompile(`(?m)^BenchmarkScript/(\w+)\S*\s.*?([0-9.]+) cpu-µs/op`)

// benchSieve runs the interpreter's own benchmark, which counts the CPU of its process: there is no peer whose CPU for the script alone
// could be told from that of a delivery.
func benchSieve(b *bench) ([]row, error) {
	out, err := exec.Command("go", "test", "-run", "xxx", "-bench", "^BenchmarkScript$", "-benchtime", "2s", "./daemons/internal/sieve").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test: %w: %s", err, out)
	}
	var rows []row
	for _, m := range sieveLine.FindAllSubmatch(out, -1) {
		v, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{Server: "interpreter", Load: "20 rules, a message of 4096 bytes: " + string(m[1]), Values: map[string]float64{"CPU µs per op": v}})
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no figure in %s", out)
	}
	return rows, nil
}
