package nfs

import (
	"time"

	"shoal/daemons/nfsguest/proto"
)

const account = "nfs-account-1"

// open opens a store on every client; the first makes the volume.
func (r *rig) open(retention time.Duration) {
	r.t.Helper()
	for i, k := range r.clients {
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name, Retention: retention, Init: i == 0, Interest: true, Maintain: true})
	}
}
