package build

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"shoal/images/internal/recipe"
)

// Artifact is one file of a release, as the manifest names it.
type Artifact struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Kind   string `json:"kind"` // image, package, sbom
	Role   string `json:"role,omitempty"`
	Format string `json:"format,omitempty"`
}

// Manifest describes a release. The text has each artifact on a line of its own, so that a shell can read it
// (shoal-upgrade does).
type Manifest struct {
	Version   string              `json:"version"`
	Commit    string              `json:"commit"`
	Artifacts []Artifact          `json:"artifacts"`
	Packages  map[string][]string `json:"packages,omitempty"` // "name version" in each role's image
}

// Image makes the disk of a role in the wanted formats (qcow2, raw, ova) below out, and its list of parts.
func (b *Builder) Image(ctx context.Context, base, r *recipe.Role, version, out string, formats []string) (files []Artifact, packages []string, err error) {
	tree, key, err := b.Tree(ctx, base, r)
	if err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("shoal-%s-%s", r.Name, version)
	if key, err = hash([]string{key}, filepath.Join(b.Repository, "images/disk")); err != nil {
		return nil, nil, err
	}
	raw := filepath.Join(b.Cache, "disk-"+r.Name+"-"+key+".raw")
	if _, err := os.Stat(raw); errors.Is(err, fs.ErrNotExist) {
		old, err := filepath.Glob(filepath.Join(b.Cache, "disk-"+r.Name+"-*"))
		if err != nil {
			return nil, nil, err
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				return nil, nil, err
			}
		}
		b.Say("%s: writing the disk", r.Name)
		if err := b.run(ctx, r.Name+"-disk", "images/disk", tree, raw+".new", "2048"); err != nil {
			return nil, nil, errors.Join(err, os.Remove(raw+".new"))
		}
		if err := os.Rename(raw+".new", raw); err != nil {
			return nil, nil, err
		}
	}
	for _, format := range formats {
		file := filepath.Join(out, name+"."+format)
		b.Say("%s: %s", r.Name, filepath.Base(file))
		if err := b.convert(ctx, r, raw, file, format, name); err != nil {
			return nil, nil, err
		}
		a, err := artifact(file)
		if err != nil {
			return nil, nil, err
		}
		a.Kind, a.Role, a.Format = "image", r.Name, format
		files = append(files, a)
		if format == "qcow2" && r.LimitMB > 0 && a.Size > int64(r.LimitMB)*1e6 {
			return nil, nil, fmt.Errorf("%s: %d bytes, the limit of the role is %d MB", a.File, a.Size, r.LimitMB)
		}
	}
	parts, err := Parts(tree)
	if err != nil {
		return nil, nil, err
	}
	sbom := filepath.Join(out, name+".cdx.json")
	if err := writeSBOM(sbom, name, version, b.Epoch, parts); err != nil {
		return nil, nil, err
	}
	a, err := artifact(sbom)
	if err != nil {
		return nil, nil, err
	}
	a.Kind, a.Role = "sbom", r.Name
	for _, p := range parts {
		if p.Type == "deb" {
			packages = append(packages, p.Name+" "+p.Version)
		}
	}
	return append(files, a), packages, nil
}

func (b *Builder) convert(ctx context.Context, r *recipe.Role, raw, file, format, name string) error {
	switch format {
	case "raw":
		return b.run(ctx, r.Name+"-raw", "cp", "--sparse=always", raw, file)
	case "qcow2":
		return b.run(ctx, r.Name+"-qcow2", "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, file)
	case "ova":
		return b.ova(ctx, r, raw, file, name)
	}
	return fmt.Errorf("format %q: there are qcow2, raw and ova", format)
}

// ova makes an archive for VMware: description, checksums, disk, in this order.
func (b *Builder) ova(ctx context.Context, r *recipe.Role, raw, file, name string) (err error) {
	work, err := os.MkdirTemp(b.Cache, "ova-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	disk := filepath.Join(work, name+"-disk1.vmdk")
	if err := b.run(ctx, r.Name+"-vmdk", "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, disk); err != nil {
		return err
	}
	st, err := os.Stat(disk)
	if err != nil {
		return err
	}
	capacity, err := os.Stat(raw)
	if err != nil {
		return err
	}
	template, err := os.ReadFile(filepath.Join(b.Repository, "images/template.ovf"))
	if err != nil {
		return err
	}
	ovf := strings.NewReplacer("@NAME@", name, "@ROLE@", r.Name, "@SUMMARY@", r.Summary, "@DISK@", filepath.Base(disk),
		"@SIZE@", fmt.Sprint(st.Size()), "@CAPACITY@", fmt.Sprint(capacity.Size())).Replace(string(template))
	if err := os.WriteFile(filepath.Join(work, name+".ovf"), []byte(ovf), 0o644); err != nil {
		return err
	}
	mf := ""
	for _, f := range []string{name + ".ovf", filepath.Base(disk)} {
		a, err := artifact(filepath.Join(work, f))
		if err != nil {
			return err
		}
		mf += fmt.Sprintf("SHA256(%s)= %s\n", f, a.SHA256)
	}
	if err := os.WriteFile(filepath.Join(work, name+".mf"), []byte(mf), 0o644); err != nil {
		return err
	}
	return b.run(ctx, r.Name+"-ova", "tar", "--format=ustar", "--owner=0", "--group=0", "--mtime=@"+fmt.Sprint(b.Epoch.Unix()), "-C", work, "-cf", file,
		name+".ovf", name+".mf", filepath.Base(disk))
}

// artifact describes a file.
func artifact(file string) (Artifact, error) {
	f, err := os.Open(file)
	if err != nil {
		return Artifact{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return Artifact{File: filepath.Base(file), SHA256: fmt.Sprintf("%x", h.Sum(nil)), Size: n}, err
}

// Package describes a Debian package of ours.
func Package(file string) (Artifact, error) {
	a, err := artifact(file)
	a.Kind = "package"
	return a, err
}

// Write writes MANIFEST.json and SHA256SUMS into a folder, and signs the manifest with a key of OpenSSH.
func (m *Manifest) Write(ctx context.Context, dir, key string) error {
	var s, sums strings.Builder
	head, err := json.Marshal(map[string]string{"version": m.Version, "commit": m.Commit})
	if err != nil {
		return err
	}
	s.WriteString(strings.TrimSuffix(string(head), "}") + ",\n \"artifacts\": [\n")
	for i, a := range m.Artifacts {
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		comma := ","
		if i == len(m.Artifacts)-1 {
			comma = ""
		}
		// One blank after : and , as shoal-upgrade expects; file names and sums hold neither.
		fmt.Fprintf(&s, "  %s%s\n", strings.NewReplacer(`":"`, `": "`, `","`, `", "`).Replace(string(line)), comma)
		fmt.Fprintf(&sums, "%s  %s\n", a.SHA256, a.File)
	}
	packages, err := json.Marshal(m.Packages)
	if err != nil {
		return err
	}
	fmt.Fprintf(&s, " ],\n \"packages\": %s\n}\n", packages)
	file := filepath.Join(dir, "MANIFEST.json")
	if err := os.WriteFile(file, []byte(s.String()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644); err != nil {
		return err
	}
	if err := os.Remove(file + ".sig"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "shoal-manifest", file).CombinedOutput(); err != nil {
		return fmt.Errorf("sign %s with %s: %w: %s", file, key, err, out)
	}
	return nil
}

// Signers makes a key for signing if there is none, and writes the file by which its signatures are verified.
func Signers(ctx context.Context, key string) (string, error) {
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "release@shoal", "-f", key).CombinedOutput(); err != nil {
			return "", fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return "", fmt.Errorf("public key of %s: %w", key, err)
	}
	file := key + ".signers"
	return file, os.WriteFile(file, []byte("release@shoal namespaces=\"shoal-manifest\" "+string(public)), 0o644)
}
