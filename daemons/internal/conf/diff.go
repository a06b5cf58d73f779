package conf

import (
	"fmt"
	"reflect"
	"sort"
)

// Change is one setting that differs between two configurations.
type Change struct {
	Path     string // "listener.smtp.address"; of a whole block: "volume.vol02"
	Old, New string // as text; "absent" for a block that is not there
	Live     bool   // a reload may make this change
}

// String reads "log.level: info -> debug".
func (c Change) String() string { return c.Path + ": " + c.Old + " -> " + c.New }

const absent = "absent"

// Diff lists the settings that differ between two configurations of the same type (pointers to
// structs), sorted by path.
func Diff(before, after any) []Change {
	a, b := reflect.ValueOf(before), reflect.ValueOf(after)
	if a.Type() != b.Type() {
		panic(fmt.Sprintf("conf: Diff of %T and %T", before, after))
	}
	var all []Change
	diffStruct(a.Elem(), b.Elem(), "", &all)
	sort.Slice(all, func(i, j int) bool { return all[i].Path < all[j].Path })
	return all
}

func diffStruct(a, b reflect.Value, path string, all *[]Change) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name, kind := hclTag(f)
		switch kind {
		case "attr", "optional":
			if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				*all = append(*all, Change{
					Path: join(path, name), Live: live(f),
					Old: fmt.Sprint(a.Field(i).Interface()), New: fmt.Sprint(b.Field(i).Interface()),
				})
			}
		case "block":
			diffBlocks(a.Field(i), b.Field(i), join(path, name), live(f), all)
		}
	}
}

func diffBlocks(a, b reflect.Value, path string, isLive bool, all *[]Change) {
	before, after := instances(a, path), instances(b, path)
	for at, x := range before {
		if y, ok := after[at]; ok {
			diffStruct(x, y, at, all)
		} else {
			*all = append(*all, Change{Path: at, Old: "present", New: absent, Live: isLive})
		}
	}
	for at := range after {
		if _, ok := before[at]; !ok {
			*all = append(*all, Change{Path: at, Old: absent, New: "present", Live: isLive})
		}
	}
}

// instances maps the path of each block in a field to its struct.
func instances(v reflect.Value, path string) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	switch v.Kind() {
	case reflect.Struct:
		all[path] = v
	case reflect.Pointer:
		if !v.IsNil() {
			all[path] = v.Elem()
		}
	case reflect.Slice:
		for i := range v.Len() {
			e := reflect.Indirect(v.Index(i))
			at := fmt.Sprintf("%s[%d]", path, i)
			for j := range e.NumField() {
				if _, kind := hclTag(e.Type().Field(j)); kind == "label" {
					at = join(path, e.Field(j).String())
				}
			}
			all[at] = e
		}
	}
	return all
}

// Find returns every block of type T in a configuration (a pointer to a struct), in the order of the
// fields.
func Find[T any](config any) []T {
	var found []T
	find(reflect.ValueOf(config), reflect.TypeFor[T](), func(v reflect.Value) {
		found = append(found, v.Interface().(T))
	})
	return found
}

func find(v reflect.Value, t reflect.Type, yield func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			find(v.Elem(), t, yield)
		}
	case reflect.Slice:
		for i := range v.Len() {
			find(v.Index(i), t, yield)
		}
	case reflect.Struct:
		if v.Type() == t {
			yield(v)
			return
		}
		for i := range v.NumField() {
			if _, kind := hclTag(v.Type().Field(i)); kind == "block" {
				find(v.Field(i), t, yield)
			}
		}
	}
}
