role "storage" {
  summary  = "volumes on XFS over NFSv4.2"
  packages = ["nfs-kernel-server", "xfsprogs", "shoalctl", "shoal-agent"]
  enable   = ["shoal-agent.service", "nfs-server.service", "srv-shoal.mount", "var-lib-nfs-nfsdcld.mount"]
  mask     = ["rpcbind.service", "rpcbind.socket", "rpc-statd.service", "rpc-statd-notify.service", "nfs-blkmap.service"]
  ports    = [9145, 9146]
  vm_ports = [2049]
  active   = ["shoal-agent.service"]
  limit_mb = 170
  # A container has no NFS server of its own: the kernel's is shown in a virtual machine.
  vm_units = ["nfs-server.service", "nfs-mountd.service", "nfs-idmapd.service", "nfsdcld.service", "proc-fs-nfsd.mount", "rpc_pipefs.target", "run-rpc_pipefs.mount", "srv-shoal.mount", "var-lib-nfs-nfsdcld.mount", "nfs-client.target"]
}
