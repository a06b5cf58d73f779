package conf

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"
)

// decoder fills a struct from a body and remembers where each setting stands.
type decoder struct {
	base   string               // folder for relative paths
	ranges map[string]hcl.Range // "listener.smtp.address" -> its place in the file
	diags  hcl.Diagnostics
}

// InvalidError is a problem of one setting, found by Validate.
type InvalidError struct {
	Field string // path of the attribute from the block that is validated: "address", "listener.smtp.tls"
	Err   error
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

// Invalid makes the error by which Validate rejects the value of an attribute. field is the path of
// the attribute below the block that is validated; the block itself is "".
func Invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Err: fmt.Errorf(format, args...)}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// problem records one error at a place of the file.
func (d *decoder) problem(at *hcl.Range, format string, args ...any) {
	d.diags = append(d.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Detail: fmt.Sprintf(format, args...), Subject: at,
	})
}

// root decodes the whole file.
func (d *decoder) root(body hcl.Body, into any) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("conf: into must point to a struct, got %T", into))
	}
	d.ranges[""] = body.MissingItemRange()
	d.body(body, v.Elem(), "")
}

// body decodes the attributes and blocks of one body into v, whose place in the file is path.
func (d *decoder) body(body hcl.Body, v reflect.Value, path string) {
	before := len(d.diags)
	schema, _ := gohcl.ImpliedBodySchema(v.Interface())
	required := map[string]bool{}
	for i, a := range schema.Attributes {
		required[a.Name] = a.Required
		schema.Attributes[i].Required = false
	}
	content, diags := body.Content(schema)
	diags = expected(diags, schema)
	d.diags = append(d.diags, diags...)
	if content == nil {
		return
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, kind := hclTag(f)
		switch kind {
		case "attr", "optional":
			attr, ok := content.Attributes[name]
			if !ok {
				if required[name] && misspelt(diags, name) {
					continue
				}
				if required[name] {
					at := body.MissingItemRange()
					d.problem(&at, "%s is missing: write %s = %s", name, name, example(f))
					continue
				}
				d.setDefault(v.Field(i), f)
				continue
			}
			d.ranges[join(path, name)] = attr.Range
			d.expression(attr.Expr, name, v.Field(i), f)
		case "block":
			d.blocks(body, content.Blocks.OfType(name), name, v.Field(i), path)
		}
	}
	if len(d.diags) == before {
		d.validate(v, path)
	}
}

// named finds the name in a diagnostic of the HCL library, proposed its suggestion.
var (
	named    = regexp.MustCompile(`(?:named|of type) "([^"]*)"`)
	proposed = regexp.MustCompile(`Did you mean .*$`)
)

// expected rewrites diagnostics about unknown names, and adds the names that are known here where the
// library has no suggestion.
func expected(diags hcl.Diagnostics, schema *hcl.BodySchema) hcl.Diagnostics {
	var attrs, blocks []string
	for _, a := range schema.Attributes {
		attrs = append(attrs, a.Name)
	}
	labels := map[string]string{}
	for _, b := range schema.Blocks {
		blocks = append(blocks, b.Type)
		labels[b.Type] = strings.Join(b.LabelNames, " ")
	}
	sort.Strings(attrs)
	sort.Strings(blocks)
	for _, g := range diags {
		what, known := "", ""
		switch {
		case g.Summary == "Unsupported argument":
			what, known = "attribute", strings.Join(attrs, ", ")
		case g.Summary == "Unsupported block type":
			what, known = "block", strings.Join(blocks, ", ")
		case strings.HasPrefix(g.Summary, "Missing name for "):
			name := strings.TrimPrefix(g.Summary, "Missing name for ")
			g.Summary, g.Detail = "", fmt.Sprintf("%s has no name: write %s \"name\" { ... }", name, name)
		case strings.HasPrefix(g.Summary, "Extraneous label for "):
			name := strings.TrimPrefix(g.Summary, "Extraneous label for ")
			form := name + " { ... }"
			if labels[name] != "" {
				form = name + " \"name\" { ... }"
			}
			g.Summary, g.Detail = "", fmt.Sprintf("%s has too many names: write %s", name, form)
		}
		if m := named.FindStringSubmatch(g.Detail); what != "" && m != nil {
			hint := proposed.FindString(g.Detail)
			switch {
			case strings.Contains(hint, "define"): // the right name, but block and attribute mixed up
				hint = fmt.Sprintf("It is an attribute: write %s = ...", m[1])
				if what == "attribute" {
					hint = fmt.Sprintf("It is a block: write %s { ... }", m[1])
				}
			case hint == "" && known != "":
				hint = "Known here: " + known
			}
			g.Summary, g.Detail = "", strings.TrimSpace(fmt.Sprintf("there is no %s %q here. %s", what, m[1], hint))
		}
	}
	return diags
}

// misspelt reports whether a diagnostic proposes the name already.
func misspelt(diags hcl.Diagnostics, name string) bool {
	for _, g := range diags {
		if strings.Contains(g.Detail, fmt.Sprintf("Did you mean %q", name)) {
			return true
		}
	}
	return false
}

// blocks decodes all blocks of one type into field.
func (d *decoder) blocks(body hcl.Body, blocks hcl.Blocks, name string, field reflect.Value, path string) {
	if field.Kind() == reflect.Slice {
		seen := map[string]hcl.Range{}
		for i, b := range blocks {
			label := strings.Join(b.Labels, ".")
			if first, dup := seen[label]; dup && label != "" {
				d.problem(&b.DefRange, "%s %q is already defined on line %d: remove one or give it another name",
					name, label, first.Start.Line)
				continue
			}
			seen[label] = b.DefRange
			at := join(path, name)
			if label != "" {
				at = join(at, label)
			} else {
				at = fmt.Sprintf("%s[%d]", at, i)
			}
			elem := reflect.New(deref(field.Type().Elem()))
			d.block(b, elem.Elem(), at)
			if field.Type().Elem().Kind() != reflect.Pointer {
				elem = elem.Elem()
			}
			field.Set(reflect.Append(field, elem))
		}
		return
	}
	if len(blocks) == 0 {
		if field.Kind() == reflect.Pointer {
			return
		}
		var missing []string
		for i := range field.NumField() {
			f := field.Type().Field(i)
			if n, kind := hclTag(f); kind == "attr" {
				missing = append(missing, n+" = "+example(f))
			}
		}
		if len(missing) > 0 {
			at := body.MissingItemRange()
			d.problem(&at, "block %s is missing: write %s { %s }", name, name, strings.Join(missing, "; "))
			return
		}
		d.ranges[join(path, name)] = body.MissingItemRange()
		d.defaults(field)
		d.validate(field, join(path, name))
		return
	}
	if len(blocks) > 1 {
		d.problem(&blocks[1].DefRange, "block %s is already defined on line %d: there can be only one",
			name, blocks[0].DefRange.Start.Line)
	}
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	d.block(blocks[0], field, join(path, name))
}

// block decodes one block with its labels.
func (d *decoder) block(b *hcl.Block, v reflect.Value, path string) {
	d.ranges[path] = b.DefRange
	next := 0
	good := true
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, kind := hclTag(f)
		if kind != "label" || next >= len(b.Labels) {
			continue
		}
		label := b.Labels[next]
		at := b.LabelRanges[next]
		next++
		d.ranges[join(path, name)] = at
		if err := check(f, label); err != nil {
			d.problem(&at, "%s %q: %s", b.Type, label, err)
			good = false
			continue
		}
		v.Field(i).SetString(label)
	}
	if good {
		d.body(b.Body, v, path)
	}
}

// validate calls the Validate method of v, and places its errors.
func (d *decoder) validate(v reflect.Value, path string) {
	if !v.CanAddr() {
		return
	}
	val, ok := v.Addr().Interface().(Validator)
	if !ok {
		return
	}
	for _, err := range flatten(val.Validate()) {
		field, msg := path, err.Error()
		var inv *InvalidError
		if errors.As(err, &inv) {
			field = join(path, inv.Field)
			msg = err.Error()
			if inv.Field == "" {
				msg = inv.Err.Error()
			}
		}
		at := d.place(field)
		d.problem(at, "%s", msg)
	}
}

// place is where the setting stands, or else the nearest block around it.
func (d *decoder) place(path string) *hcl.Range {
	for {
		if at, ok := d.ranges[path]; ok {
			return &at
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			at := d.ranges[""]
			return &at
		}
		path = path[:i]
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// defaults sets the defaults of all attributes of a block that is absent, and of the blocks in it.
func (d *decoder) defaults(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch _, kind := hclTag(f); {
		case kind == "optional":
			d.setDefault(v.Field(i), f)
		case kind == "block" && f.Type.Kind() == reflect.Struct:
			d.defaults(v.Field(i))
		}
	}
}

// SetDefaults sets every attribute of the struct that into points to, and of the blocks in it, to the
// default of its tag: for tests and for code that builds a configuration without a file.
func SetDefaults(into any) {
	(&decoder{base: "."}).defaults(reflect.ValueOf(into).Elem())
}

// setDefault sets a field from its default tag. A default that does not parse is a bug of the program.
func (d *decoder) setDefault(v reflect.Value, f reflect.StructField) {
	text, ok := f.Tag.Lookup("default")
	if !ok {
		return
	}
	var err error
	if f.Type.Kind() == reflect.Slice {
		for _, word := range strings.Fields(text) {
			if err = check(f, word); err == nil {
				v.Set(reflect.Append(v, reflect.ValueOf(word).Convert(f.Type.Elem())))
			}
		}
	} else if f.Type.Kind() == reflect.String {
		v.SetString(text)
		err = check(f, text)
	} else {
		err = setText(v, text)
	}
	if err != nil {
		panic(fmt.Sprintf("conf: default of %s: %v", f.Name, err))
	}
}

// expression evaluates the value of an attribute into v.
func (d *decoder) expression(expr hcl.Expression, name string, v reflect.Value, f reflect.StructField) {
	at := expr.Range()
	if f.Type.Kind() == reflect.Slice {
		elems, diags := hcl.ExprList(expr)
		if diags.HasErrors() {
			d.problem(&at, "%s must be a list: write %s = %s", name, name, example(f))
			return
		}
		v.Set(reflect.MakeSlice(f.Type, 0, len(elems)))
		for _, e := range elems {
			item := reflect.New(f.Type.Elem()).Elem()
			before := len(d.diags)
			d.scalar(e, name, item, f)
			if len(d.diags) == before {
				v.Set(reflect.Append(v, item))
			}
		}
		return
	}
	if f.Type.Kind() == reflect.Map {
		pairs, diags := hcl.ExprMap(expr)
		if diags.HasErrors() {
			d.problem(&at, "%s must be a map: write %s = { key = \"value\" }", name, name)
			return
		}
		v.Set(reflect.MakeMap(f.Type))
		for _, p := range pairs {
			key := reflect.New(f.Type.Key()).Elem()
			item := reflect.New(f.Type.Elem()).Elem()
			before := len(d.diags)
			d.scalar(p.Key, name, key, reflect.StructField{Type: f.Type.Key()})
			d.scalar(p.Value, name, item, f)
			if len(d.diags) == before {
				v.SetMapIndex(key, item)
			}
		}
		return
	}
	d.scalar(expr, name, v, f)
}

// scalar evaluates one plain value into v and checks it against the tags of f.
func (d *decoder) scalar(expr hcl.Expression, name string, v reflect.Value, f reflect.StructField) {
	at := expr.Range()
	val, diags := expr.Value(nil)
	if diags.HasErrors() {
		d.diags = append(d.diags, diags...)
		return
	}
	if val.IsNull() || !val.IsKnown() {
		d.problem(&at, "%s has no value: remove the line to take the default, or write %s = %s", name, name, example(f))
		return
	}
	if err := d.set(v, val, f); err != nil {
		d.problem(&at, "%s: %s", name, err)
	}
}

// set stores one plain value, strictly of the field's type.
func (d *decoder) set(v reflect.Value, val cty.Value, f reflect.StructField) error {
	t := v.Type()
	isText := t == durationType || reflect.PointerTo(t).Implements(textType)
	switch {
	case isText && val.Type() != cty.String:
		return fmt.Errorf("must be written in quotes, with its unit: for example %s", exampleOf(t, f))
	case isText:
		if err := setText(v, val.AsString()); err != nil {
			return err
		}
		return bounds(v, f)
	case t.Kind() == reflect.String:
		if val.Type() != cty.String {
			return fmt.Errorf("must be a text in quotes: for example %s", exampleOf(t, f))
		}
		s, err := d.text(val.AsString(), f)
		if err != nil {
			return err
		}
		v.SetString(s)
		return nil
	case t.Kind() == reflect.Bool:
		if val.Type() != cty.Bool {
			return errors.New("must be true or false, without quotes")
		}
		v.SetBool(val.True())
		return nil
	}
	if val.Type() != cty.Number {
		return fmt.Errorf("must be a number, without quotes: for example %s", exampleOf(t, f))
	}
	if err := gocty.FromCtyValue(val, v.Addr().Interface()); err != nil {
		if (v.CanInt() || v.CanUint()) && v.Type().Bits() == 64 {
			return errors.New("must be a whole number")
		}
		return errors.New(strings.TrimPrefix(err.Error(), "value "))
	}
	return bounds(v, f)
}

// setText stores a text into a duration, a number, a bool or a TextUnmarshaler.
func setText(v reflect.Value, text string) error {
	if v.Type() == durationType {
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
		return err
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(text, v.Type().Bits())
		v.SetFloat(n)
		return err
	}
	return fmt.Errorf("no text form for type %s", v.Type())
}

// hclTag splits the hcl tag of a field; kind is "" for a field that is no setting.
func hclTag(f reflect.StructField) (name, kind string) {
	tag := f.Tag.Get("hcl")
	if tag == "" {
		return "", ""
	}
	name, kind, found := strings.Cut(tag, ",")
	if !found {
		kind = "attr"
	}
	return name, kind
}

func join(path, name string) string {
	switch {
	case path == "":
		return name
	case name == "":
		return path
	}
	return path + "." + name
}

func deref(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
