package shoalctl

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/enrol"
	"shoal/daemons/internal/pki"
)

// caView is a CA as shown.
type caView struct {
	Certificate string    `json:"certificate"` // file
	Key         string    `json:"key,omitempty"`
	SHA256      string    `json:"ca_sha256"`
	Expires     time.Time `json:"expires"`
}

func (t *tool) cmdCA() *cobra.Command {
	return group("ca", "Make the internal CA, and certificates by hand",
		t.cmdCACreate(), t.cmdCAIssue(), t.cmdCAFingerprint())
}

func (t *tool) cmdCACreate() *cobra.Command {
	var name string
	var years int
	cmd := &cobra.Command{
		Use:   "create FOLDER",
		Short: "Make the internal CA: FOLDER/ca.crt and FOLDER/ca.key",
		Long: `Make the internal CA: FOLDER/ca.crt, and FOLDER/ca.key, which nobody else may read.

Keep the key offline, or on the directory machine where the authority for enrolment uses it.
The fingerprint that is printed is what new servers know the CA by.`,
		Example: "  shoalctl ca create ca",
		Args:    exactArgs("the folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			cert, key := filepath.Join(args[0], "ca.crt"), filepath.Join(args[0], "ca.key")
			if years < 1 || years > 50 {
				return usageError{fmt.Errorf("--years must be from 1 to 50")}
			}
			for _, file := range []string{cert, key} {
				if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("%s is there already: a new CA would end the trust in all certificates of the old one", file)
				}
			}
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			ca, err := pki.NewCA(pki.CAOptions{Name: name, Validity: time.Duration(years) * 365 * 24 * time.Hour})
			if err != nil {
				return err
			}
			if err := ca.Save(cert, key); err != nil {
				return err
			}
			return t.showCA(ca, cert, key)
		},
	}
	cmd.Flags().StringVar(&name, "name", "Shoal internal CA", "common name of the CA")
	cmd.Flags().IntVar(&years, "years", 10, "how long it is good")
	return cmd
}

func (t *tool) showCA(ca *pki.CA, cert, key string) error {
	block, _ := pem.Decode(ca.CertPEM())
	v := caView{Certificate: cert, Key: key, SHA256: enrol.Fingerprint(block.Bytes), Expires: ca.NotAfter().UTC()}
	if t.json {
		return t.printJSON(v)
	}
	fmt.Fprintf(t.out, "CA           %s\nkey          %s\nca_sha256    %s\nexpires      %s\n", v.Certificate, v.Key, v.SHA256, v.Expires.Format(time.DateOnly))
	return nil
}

func (t *tool) cmdCAIssue() *cobra.Command {
	var folder, out string
	var r pki.Request
	var days int
	cmd := &cobra.Command{
		Use:   "issue ROLE NAME",
		Short: "Issue a certificate by hand: for an operator, or for the first server",
		Long: `Issue a certificate by hand, where the CA's key is: for an operator, or for the first server of the directory.
Other servers enrol (shoalctl enrol): their keys never leave them.`,
		Example: "  shoalctl ca issue operator alice --ca ca --out alice\n" +
			"  shoalctl ca issue vault vault1 --ca ca --out vault1 --host vault1.example.net",
		Args: exactArgs("the role", "the name"),
		RunE: func(_ *cobra.Command, args []string) error {
			r.Role, r.Name, r.Validity = args[0], args[1], time.Duration(days)*24*time.Hour
			if days < 1 {
				return usageError{errors.New("--days must be at least 1")}
			}
			ca, err := pki.LoadCA(filepath.Join(folder, "ca.crt"), filepath.Join(folder, "ca.key"))
			if err != nil {
				return err
			}
			pair, err := ca.Issue(r)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			files := pki.Files{Cert: filepath.Join(out, r.Name+".crt"), Key: filepath.Join(out, r.Name+".key"), CA: filepath.Join(out, "ca.crt")}
			if err := pair.Save(files.Cert, files.Key); err != nil {
				return err
			}
			if err := pki.WriteFile(files.CA, ca.CertPEM(), 0o644); err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]string{"certificate": files.Cert, "key": files.Key, "ca": files.CA})
			}
			fmt.Fprintf(t.out, "%s\n%s\n%s\n", files.Cert, files.Key, files.CA)
			return nil
		},
	}
	cmd.Flags().StringVar(&folder, "ca", "ca", "folder of the CA")
	cmd.Flags().StringVar(&out, "out", ".", "folder for certificate, key and the CA's certificate")
	cmd.Flags().StringSliceVar(&r.Hosts, "host", nil, "DNS name or address of the server, for foreign software")
	cmd.Flags().IntVar(&days, "days", 365, "how long it is good")
	return cmd
}

func (t *tool) cmdCAFingerprint() *cobra.Command {
	return &cobra.Command{
		Use:     "fingerprint FILE",
		Short:   "Print the SHA-256 of a CA's certificate, by which new servers know it",
		Example: "  shoalctl ca fingerprint ca/ca.crt",
		Args:    exactArgs("the file of the certificate"),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			block, _ := pem.Decode(b)
			if block == nil || block.Type != "CERTIFICATE" {
				return fmt.Errorf("%s holds no certificate in PEM", args[0])
			}
			sum := enrol.Fingerprint(block.Bytes)
			if t.json {
				return t.printJSON(map[string]string{"ca_sha256": sum})
			}
			fmt.Fprintln(t.out, sum)
			return nil
		},
	}
}

// printJSON is for answers whose text was decided on already.
func (t *tool) printJSON(v any) error { return t.show(v, func() {}) }
