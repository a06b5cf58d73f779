package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

// hypervisor is a libvirt daemon.
type hypervisor struct {
	l  *libvirt.Libvirt
	mu sync.Mutex // uploads of images one at a time: they share the connection
}

// dialHypervisor connects to a local libvirt daemon: qemu:///system, or with another socket qemu:///system?socket=/path. One on
// another host is reached through a forwarded socket (ssh -L), so that who may do what is SSH's business.
func dialHypervisor(uri string) (*hypervisor, error) {
	u, err := url.Parse(uri)
	if err != nil || !strings.HasPrefix(u.Scheme, "qemu") || u.Host != "" || u.Path == "" {
		return nil, fmt.Errorf("libvirt's uri %q: write qemu:///system, or qemu:///system?socket=/path for another socket", uri)
	}
	options := []dialers.LocalOption{dialers.WithLocalTimeout(10 * time.Second)}
	if s := u.Query().Get("socket"); s != "" {
		options = append(options, dialers.WithSocket(s))
	}
	l := libvirt.NewWithDialer(dialers.NewLocal(options...))
	if err := l.ConnectToURI(libvirt.ConnectURI("qemu://" + u.Path)); err != nil {
		return nil, fmt.Errorf("libvirt at %s cannot be reached: %w", uri, err)
	}
	return &hypervisor{l: l}, nil
}

func absent(err error) bool {
	var e libvirt.Error
	return errors.As(err, &e) && (e.Code == uint32(libvirt.ErrNoDomain) || e.Code == uint32(libvirt.ErrNoStorageVol))
}

// volume finds a volume; found is false when there is none of this name.
func (h *hypervisor) volume(pool, name string) (v libvirt.StorageVol, found bool, err error) {
	p, err := h.l.StoragePoolLookupByName(pool)
	if err != nil {
		return v, false, fmt.Errorf("storage pool %s: %w", pool, err)
	}
	v, err = h.l.StorageVolLookupByName(p, name)
	if absent(err) {
		return v, false, nil
	}
	return v, err == nil, err
}

// createVolume makes a volume; backing is the path of an image that it lies over, or empty.
func (h *hypervisor) createVolume(pool, name, format string, size uint64, backing string) (libvirt.StorageVol, error) {
	p, err := h.l.StoragePoolLookupByName(pool)
	if err != nil {
		return libvirt.StorageVol{}, fmt.Errorf("storage pool %s: %w", pool, err)
	}
	over := ""
	if backing != "" {
		over = "<backingStore><path>" + escape(backing) + "</path><format type='qcow2'/></backingStore>"
	}
	xml := fmt.Sprintf("<volume><name>%s</name><capacity unit='bytes'>%d</capacity><target><format type='%s'/></target>%s</volume>", escape(name), size, format, over)
	v, err := h.l.StorageVolCreateXML(p, xml, 0)
	if err != nil {
		return v, fmt.Errorf("volume %s: %w", name, err)
	}
	return v, nil
}

// refresh has every active pool look at what is in its folder now. A pool that cannot is none of ours, or will say so when it
// is used.
func (h *hypervisor) refresh() {
	pools, _, err := h.l.ConnectListAllStoragePools(1, libvirt.ConnectListStoragePoolsActive)
	if err != nil {
		return
	}
	for _, p := range pools {
		_ = h.l.StoragePoolRefresh(p, 0)
	}
}

// sum reads a whole volume and gives the SHA-256 of its file.
func (h *hypervisor) sum(v libvirt.StorageVol) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha256.New()
	if err := h.l.StorageVolDownload(v, sum, 0, 0, 0); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (h *hypervisor) removeVolume(pool, name string) error {
	v, found, err := h.volume(pool, name)
	if err != nil || !found {
		return err
	}
	return h.l.StorageVolDelete(v, 0)
}

func (h *hypervisor) upload(v libvirt.StorageVol, r io.Reader, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.l.StorageVolUpload(v, r, 0, uint64(size), 0)
}

func (h *hypervisor) uploadFile(v libvirt.StorageVol, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return h.upload(v, f, st.Size())
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;").Replace(s)
}

// States of a domain that matter here.
const (
	domainRunning = 1
	domainOff     = 5
)

// stop ends a domain: by its own power button first, then hard.
func (h *hypervisor) stop(d libvirt.Domain, patience time.Duration) error {
	state, _, err := h.l.DomainGetState(d, 0)
	if err != nil || state == domainOff {
		return err
	}
	if err := h.l.DomainShutdown(d); err == nil {
		for limit := time.Now().Add(patience); time.Now().Before(limit); <-time.After(200 * time.Millisecond) {
			if state, _, err := h.l.DomainGetState(d, 0); err == nil && state == domainOff {
				return nil
			}
		}
	}
	return h.l.DomainDestroy(d)
}
