package build

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Part is something that an image is made of: a Debian package, or a Go module in a program of ours.
type Part struct {
	Type    string // deb, golang
	Name    string
	Version string
	Source  string // of a Debian package, where its name differs
	In      string // of a module: the program
}

// Parts reads them from dpkg's database and from the programs of a tree.
func Parts(tree string) ([]Part, error) {
	f, err := os.Open(filepath.Join(tree, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Part
	p := Part{Type: "deb"}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		name, value, _ := strings.Cut(s.Text(), ": ")
		switch {
		case s.Text() == "":
			if p.Name != "" {
				all = append(all, p)
			}
			p = Part{Type: "deb"}
		case name == "Package":
			p.Name = value
		case name == "Version":
			p.Version = value
		case name == "Source":
			p.Source, _, _ = strings.Cut(value, " ")
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("dpkg's database: %w", err)
	}
	if p.Name != "" {
		all = append(all, p)
	}
	var programs []string
	for _, pattern := range []string{"usr/sbin/*", "usr/bin/shoal*", "usr/lib/shoal/*"} {
		found, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return nil, err
		}
		programs = append(programs, found...)
	}
	for _, file := range programs {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			continue // no program of Go
		}
		in := "/" + strings.TrimPrefix(file, tree+"/")
		all = append(all, Part{Type: "golang", Name: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go"), In: in})
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			all = append(all, Part{Type: "golang", Name: m.Path, Version: m.Version, In: in})
		}
	}
	slices.SortStableFunc(all, func(a, b Part) int {
		return strings.Compare(a.Type+" "+a.Name+" "+a.Version+" "+a.In, b.Type+" "+b.Name+" "+b.Version+" "+b.In)
	})
	return all, nil
}

// writeSBOM writes a software bill of materials in CycloneDX 1.5 (JSON).
func writeSBOM(file, name, version string, at time.Time, parts []Part) error {
	type property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	type component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref,omitempty"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	var components []component
	for _, p := range parts {
		c := component{Type: "library", Name: p.Name, Version: p.Version}
		if p.Type == "deb" {
			c.Type = "application"
			c.PURL = fmt.Sprintf("pkg:deb/debian/%s@%s?arch=amd64&distro=debian-12", p.Name, strings.ReplaceAll(p.Version, "+", "%2B"))
			if p.Source != "" {
				c.Properties = []property{{"shoal:source-package", p.Source}}
			}
		} else {
			c.PURL = fmt.Sprintf("pkg:golang/%s@%s", p.Name, p.Version)
			c.Properties = []property{{"shoal:program", p.In}}
		}
		c.Ref = fmt.Sprintf("%s#%s", c.PURL, p.In)
		components = append(components, c)
	}
	b, err := json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"serialNumber": serial(name + version),
		"metadata": map[string]any{
			"timestamp": at.UTC().Format(time.RFC3339),
			"component": component{Type: "operating-system", Name: name, Version: version},
		},
		"components": components,
	}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// serial is a UUID (form 8: made of a hash) that the same image has each time.
func serial(of string) string {
	h := fmt.Sprintf("%x", sha256.Sum256([]byte(of)))
	return "urn:uuid:" + h[:8] + "-" + h[8:12] + "-8" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}
