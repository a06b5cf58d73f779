# What every image is built on.
role "base" {
  summary = "Debian with what a machine of the service needs: first boot, packet filter, clock, metrics of the machine"

  packages = [
    "linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd", "systemd-sysv", "udev", "dbus", "kmod",
    "openssh-server", "ca-certificates", "iproute2", "netbase", "nftables", "e2fsprogs", "chrony",
    "prometheus-node-exporter", "python3", "python3-apt",
  ]

  enable = ["systemd-networkd.service", "systemd-networkd-wait-online.service", "ssh.service", "chrony.service", "prometheus-node-exporter.service"]
  mask = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "systemd-firstboot.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount", "systemd-pstore.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-sysusers.service", "systemd-machine-id-commit.service",
    "systemd-fsck-root.service", "systemd-pcrphase.service", "systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service",
    "systemd-boot-system-token.service", "systemd-journal-flush.service", "systemd-network-generator.service", "systemd-remount-fs.service",
    "kmod-static-nodes.service", "systemd-tmpfiles-setup-dev.service", "modprobe@dm_mod.service", "modprobe@loop.service", "modprobe@drm.service", "modprobe@configfs.service", "modprobe@fuse.service", "modprobe@efi_pstore.service",
    "systemd-logind.service", "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "getty@tty1.service", "nftables.service",
    "prometheus-node-exporter-apt.timer", "prometheus-node-exporter-ipmitool-sensor.timer", "prometheus-node-exporter-mellanox-hca-temp.timer",
    "prometheus-node-exporter-nvme.timer", "prometheus-node-exporter-smartmon.timer", "haveged.service",
  ]

  ports = [22, 9100]
}
