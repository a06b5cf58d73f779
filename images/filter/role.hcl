role "filter" {
  summary  = "rspamd, ClamAV and a validating resolver for the switches"
  packages = ["rspamd", "clamav-daemon", "clamav-freshclam", "unbound", "dns-root-data", "shoal-common"]
  enable   = ["rspamd.service", "clamav-daemon.service", "clamav-freshclam.service", "unbound.service"]
  ports    = [53, 11332, 11333, 11334]
  active   = ["rspamd.service", "unbound.service"]
  # No limit of size: signatures are large, and come at run time.
}
