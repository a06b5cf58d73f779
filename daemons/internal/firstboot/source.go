package firstboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Texts are the texts of a seed, by the names that NoCloud gives them; enrol-token is only a credential.
type Texts map[string][]byte

var textNames = []string{"user-data", "meta-data", "network-config", "enrol-token"}

// Labels of volumes.
const (
	seedLabel = "cidata"
	dataLabel = "shoal-data"
)

// readBounded reads a file of at most maxText bytes.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("%s: larger than %d bytes", file, maxText)
	}
	return b, err
}

// sources looks for the seed: a volume with its label, else credentials. What a volume lacks may come as a credential.
func (m *Machine) sources() (Texts, string, error) {
	if m.Sources != nil {
		return m.Sources()
	}
	texts, from := Texts{}, ""
	device, _, err := m.findVolume(seedLabel)
	if err != nil {
		return nil, "", err
	}
	if device != "" {
		if err := m.readVolume(device, texts); err != nil {
			return nil, "", fmt.Errorf("seed on %s: %w", device, err)
		}
		from = device
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	for _, name := range textNames {
		if folder == "" || texts[name] != nil {
			continue
		}
		b, err := readBounded(filepath.Join(folder, "shoal."+name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", fmt.Errorf("credential shoal.%s: %w", name, err)
		}
		texts[name] = b
		if from == "" {
			from = "credentials"
		}
	}
	return texts, from, nil
}

// readVolume mounts a seed and reads its texts.
func (m *Machine) readVolume(device string, into Texts) (err error) {
	at := m.path("/run/shoal/seed")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if _, err := m.Run("mount", "-o", "ro,nosuid,nodev,noexec", device, at); err != nil {
		return err
	}
	defer func() {
		_, uerr := m.Run("umount", at)
		err = errors.Join(err, uerr)
	}()
	for _, name := range textNames {
		b, err := readBounded(filepath.Join(at, name))
		switch {
		case err == nil:
			into[name] = b
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// findVolume is the block device whose file system has a label, and the type of that; "" when there is none. Devices
// that udev has not seen yet are waited for once.
func (m *Machine) findVolume(label string) (device, kind string, err error) {
	for try := range 2 {
		devices, err := filepath.Glob(m.path("/sys/class/block/*"))
		if err != nil {
			return "", "", err
		}
		slices.Sort(devices)
		for _, d := range devices {
			name := filepath.Base(d)
			if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") {
				continue
			}
			// An empty drive cannot be opened, and that is no mistake.
			if have, kind := readLabel(m.path("/dev", name)); have == label {
				return "/dev/" + name, kind, nil
			}
		}
		if try == 0 {
			// udevadm fails where there is no udev (a container): then there are no devices to wait for.
			if _, err := m.Run("udevadm", "settle", "--timeout=10"); err != nil {
				break
			}
		}
	}
	return "", "", nil
}

// readLabel reads the label of a file system: ISO 9660 (primary volume descriptor at 32 KiB, label at byte 40), FAT (label at 71
// or 43), ext4 (superblock at 1 KiB, magic at 56, label at 120), XFS (magic at 0, label at 108).
func readLabel(device string) (label, kind string) {
	f, err := os.Open(device)
	if err != nil {
		return "", ""
	}
	defer f.Close()
	b := make([]byte, 34<<10)
	n, _ := io.ReadFull(f, b) // a short one has no label further back
	return parseLabel(b[:n])
}

func parseLabel(b []byte) (label, kind string) {
	text := func(from, length int) string {
		return strings.TrimRight(string(bytes.TrimRight(b[from:from+length], "\x00")), " ")
	}
	switch {
	case len(b) >= 32768+72 && string(b[32769:32774]) == "CD001":
		return text(32768+40, 32), "iso9660"
	case len(b) >= 1024+136 && b[1024+56] == 0x53 && b[1024+57] == 0xef:
		return text(1024+120, 16), "ext4"
	case len(b) >= 120 && string(b[:4]) == "XFSB":
		return text(108, 12), "xfs"
	case len(b) >= 512 && b[510] == 0x55 && b[511] == 0xaa && string(b[82:87]) == "FAT32":
		return strings.ToLower(text(71, 11)), "vfat"
	case len(b) >= 512 && b[510] == 0x55 && b[511] == 0xaa && string(b[54:57]) == "FAT":
		return strings.ToLower(text(43, 11)), "vfat"
	}
	return "", ""
}

// mountData mounts the data disk, and makes it first if there is a blank disk whose serial number says that it is to be
// one. A storage server has XFS.
func (m *Machine) mountData(storage bool) error {
	if mounted, err := m.isMounted("/var/lib/shoal"); err != nil || mounted {
		return err
	}
	device, kind, err := m.findVolume(dataLabel)
	if err != nil {
		return err
	}
	if device == "" {
		if device, err = m.blankData(); err != nil {
			return err
		}
		if device == "" {
			m.say("no data disk (label %s): state is kept on the system disk and ends with it", dataLabel)
			return nil
		}
		mkfs := []string{"mkfs.ext4", "-q", "-L", dataLabel, device}
		kind = "ext4"
		if storage {
			mkfs, kind = []string{"mkfs.xfs", "-q", "-L", dataLabel, device}, "xfs"
		}
		if _, err := m.Run(mkfs[0], mkfs[1:]...); err != nil {
			return err
		}
		m.say("%s was blank and is the data disk now (%s)", device, kind)
	}
	options := "nosuid,nodev,noexec,noatime"
	if kind == "xfs" {
		options += ",prjquota"
	}
	if err := os.MkdirAll(m.path("/var/lib/shoal"), 0o755); err != nil {
		return err
	}
	if _, err := m.Run("mount", "-t", kind, "-o", options, device, m.path("/var/lib/shoal")); err != nil {
		return fmt.Errorf("data disk: %w", err)
	}
	m.say("data disk %s (%s)", device, kind)
	return nil
}

// blankData is the disk with the serial number shoal-data, if its first mebibyte is empty.
func (m *Machine) blankData() (string, error) {
	serials, err := filepath.Glob(m.path("/sys/block/*/serial"))
	if err != nil {
		return "", err
	}
	for _, s := range serials {
		b, err := readBounded(s)
		if err != nil || strings.TrimSpace(string(b)) != dataLabel {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(s))
		f, err := os.Open(m.path(device))
		if err != nil {
			return "", fmt.Errorf("data disk: %w", err)
		}
		head := make([]byte, 1<<20)
		n, err := io.ReadFull(f, head)
		f.Close()
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return "", fmt.Errorf("data disk %s: %w", device, err)
		}
		if bytes.Trim(head[:n], "\x00") != nil && len(bytes.Trim(head[:n], "\x00")) > 0 {
			return "", fmt.Errorf("%s has the serial number of a data disk, holds something, and has no label %s: label it, or clear its first mebibyte", device, dataLabel)
		}
		return device, nil
	}
	return "", nil
}

func (m *Machine) isMounted(point string) (bool, error) {
	b, err := readBounded(m.path("/proc/self/mountinfo"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == point {
			return true, err
		}
	}
	return false, err
}
