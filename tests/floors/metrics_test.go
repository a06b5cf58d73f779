package floors

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Tables of metrics follow a comment "<!-- metrics: component -->", and have these columns:
const metricsHeading = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|"

// metric is one row. The meaning is the Help text of the code.
type metric struct {
	name, kind, labels, help string
}

var metricName = regexp.MustCompile(`^shoal_[a-z0-9]+(_[a-z0-9]+)*$`)

// component is the second word of a metric's name.
func component(name string) string { return strings.Split(name, "_")[1] }

// findMetrics collects the metrics of the code: every string that looks like the name of one and stands in
// an Opts struct, or in a call of a function whose name tells the type. Labels and help are read from the
// struct and the call around it, or from the arguments beside it. Elsewhere such a string is a mention, and
// must be of a metric that exists.
func findMetrics(s *source) (map[string]metric, []string) {
	all, mentioned := map[string]metric{}, map[string]bool{}
	var wrong []string
	s.walk(func(f *ast.File, n ast.Node, around []ast.Node) {
		if kv, ok := n.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok && (key.Name == "Namespace" || key.Name == "Subsystem") {
				wrong = append(wrong, fmt.Sprintf("%s: %s: write the whole name in Name, so that it can be searched for", s.fset.Position(n.Pos()).Filename, key.Name))
			}
		}
		lit, ok := n.(*ast.BasicLit)
		if !ok {
			return
		}
		name, ok := text(lit)
		if !ok || !strings.HasPrefix(name, "shoal_") {
			return
		}
		if !metricName.MatchString(name) {
			wrong = append(wrong, fmt.Sprintf("%s: not the form of a metric's name", name))
			return
		}
		m := metric{name: name}
		switch parent := around[len(around)-1].(type) {
		case *ast.KeyValueExpr:
			m.fromOpts(around)
		case *ast.CallExpr:
			m.fromCall(parent, lit)
		}
		if m.kind == "" {
			mentioned[name] = true
			return
		}
		if m.help == "" {
			wrong = append(wrong, fmt.Sprintf("%s: it has no Help text, or none that can be read here", name))
		}
		if m.kind == "counter" != strings.HasSuffix(name, "_total") {
			wrong = append(wrong, fmt.Sprintf("%s: a %s: counters, and only they, end in _total", name, m.kind))
		}
		if _, twice := all[name]; twice {
			wrong = append(wrong, fmt.Sprintf("%s: made in two places", name))
		}
		all[name] = m
	})
	for name := range mentioned {
		if _, ok := all[strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: read, but made nowhere", name))
		}
	}
	slices.Sort(wrong)
	return all, wrong
}

// fromOpts reads prometheus.NewXxx(prometheus.XxxOpts{Name: ..., Help: ...}, []string{...}).
func (m *metric) fromOpts(around []ast.Node) {
	if len(around) < 2 {
		return
	}
	opts, ok := around[len(around)-2].(*ast.CompositeLit)
	if !ok {
		return
	}
	m.kind = kindOf(lastName(opts.Type))
	var labels []string
	for _, e := range opts.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch key, _ := kv.Key.(*ast.Ident); {
		case key == nil:
		case key.Name == "Help":
			m.help, _ = text(kv.Value)
		case key.Name == "ConstLabels":
			labels = append(labels, literals(kv.Value)...)
		}
	}
	if len(around) > 2 {
		if call, ok := around[len(around)-3].(*ast.CallExpr); ok {
			for _, a := range call.Args[1:] {
				labels = append(labels, literals(a)...)
			}
		}
	}
	m.labels = strings.Join(labels, ", ")
}

// fromCall reads counter("name", "help", "label", ...) and the like, and prometheus.NewDesc.
func (m *metric) fromCall(call *ast.CallExpr, name ast.Expr) {
	if m.kind = kindOf(lastName(call.Fun)); m.kind == "" {
		return
	}
	i := slices.Index(call.Args, name)
	var labels []string
	for _, a := range call.Args[i+1:] {
		if s, ok := text(a); ok && m.help == "" {
			m.help = s
		} else if ok {
			labels = append(labels, s)
		} else {
			labels = append(labels, literals(a)...)
		}
	}
	m.labels = strings.Join(labels, ", ")
}

// literals are the strings of []string{...}, or the keys of prometheus.Labels{...}.
func literals(e ast.Expr) []string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	var all []string
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Key
		}
		if s, ok := text(e); ok {
			all = append(all, s)
		}
	}
	return all
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func kindOf(name string) string {
	for _, k := range []string{"counter", "gauge", "histogram", "summary"} {
		if strings.Contains(strings.ToLower(name), k) {
			return k
		}
	}
	if name == "NewDesc" {
		return "gauge"
	}
	return ""
}

func (m metric) cells() []string {
	labels := "none"
	if m.labels != "" {
		labels = "`" + strings.ReplaceAll(m.labels, ", ", "`, `") + "`"
	}
	return []string{"`" + m.name + "`", m.kind, labels, m.help}
}

// checkMetrics compares the code below dir with dir/docs/metrics.md.
func checkMetrics(dir string) ([]string, error) {
	src, err := parseTree(dir)
	if err != nil {
		return nil, err
	}
	doc, err := os.ReadFile(filepath.Join(dir, "docs/metrics.md"))
	if err != nil {
		return nil, err
	}
	metrics, wrong := findMetrics(src)
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	seen := map[string]bool{}
	for _, t := range readTables(strings.Split(string(doc), "\n"), "metrics") {
		for _, r := range t.rows {
			name := strings.Trim(r[0], "`")
			m, ok := metrics[name]
			switch {
			case !ok:
				say("%s: documented, but not in the code", name)
				continue
			case seen[name]:
				say("%s: documented twice", name)
			case component(name) != t.marker:
				say("%s: documented under %s", name, t.marker)
			case !slices.Equal(r, m.cells()):
				say("%s: documented as %q, but it is %q", name, r[1:], m.cells()[1:])
			}
			seen[name] = true
		}
	}
	for _, name := range sortedKeys(metrics) {
		if !seen[name] {
			say("%s: not documented", name)
		}
	}
	return wrong, nil
}

// updateMetrics rewrites the tables of docs/metrics.md.
func updateMetrics(dir string) error {
	src, err := parseTree(dir)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "docs/metrics.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	metrics, _ := findMetrics(src)
	components := map[string][]string{}
	for _, name := range sortedKeys(metrics) {
		components[component(name)] = append(components[component(name)], row(metrics[name].cells()...))
	}
	lines := strings.Split(string(doc), "\n")
	var out []string
	last := 0
	for _, t := range readTables(lines, "metrics") {
		out = append(out, lines[last:t.first]...)
		out = append(out, components[t.marker]...)
		delete(components, t.marker)
		last = t.end
	}
	out = append(out, lines[last:]...)
	for _, c := range sortedKeys(components) {
		out = append(out, "## "+c, "", "<!-- metrics: "+c+" -->", "", metricsHeading)
		out = append(append(out, components[c]...), "")
	}
	return os.WriteFile(file, []byte(strings.Join(out, "\n")), 0o644)
}

func TestMetricsAreDocumented(t *testing.T) {
	if *update {
		if err := updateMetrics(root); err != nil {
			t.Fatal(err)
		}
	}
	wrong, err := checkMetrics(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error("docs/metrics.md: " + w)
	}
}

func TestBadMetricsAreSeen(t *testing.T) {
	got, err := checkMetrics("testdata/baddocs")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, []string{
		"shoal_box_Bad: not the form of a metric's name",
		"testdata/baddocs/daemons/internal/boxd/boxd.go: Namespace: write the whole name in Name, so that it can be searched for",
		"shoal_box_mail: a counter: counters, and only they, end in _total",
		"shoal_box_open_total: a gauge: counters, and only they, end in _total",
		"shoal_box_open_total: not documented",
		"shoal_box_silent_total: it has no Help text, or none that can be read here",
		"shoal_box_silent_total: not documented",
		"shoal_box_logins_total: documented as [\"counter\" \"`result`\" \"Old text.\"], but it is [\"counter\" \"`result`, `reason`\" \"Logins, by result and reason.\"]",
		"shoal_box_typo_total: read, but made nowhere",
		"shoal_box_mail: documented under other",
		"shoal_box_gone_total: documented, but not in the code",
	})
}
