package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kdomanski/iso9660"
)

// seedISO gives an ISO image labelled cidata (NoCloud) for the first boot of an image: meta-data, user-data and, if there is one,
// network-config. user and secret are JSON objects; secret is laid over user.
func seedISO(name, instance string, user, secret, network string) (_ []byte, err error) {
	merged := map[string]any{}
	for _, text := range []string{user, secret} {
		if text == "" {
			continue
		}
		var more map[string]any
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return nil, errors.New("user_data must be a JSON object (jsonencode)") // without the text: it may hold secrets
		}
		overlay(merged, more)
	}
	data, err := json.MarshalIndent(merged, "", "  ")
	if err != nil {
		return nil, err
	}
	meta, err := json.Marshal(map[string]string{"instance-id": instance, "local-hostname": name})
	if err != nil {
		return nil, err
	}
	w, err := iso9660.NewWriter()
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	defer func() { err = errors.Join(err, w.Cleanup()) }()
	files := map[string][]byte{"meta-data": meta, "user-data": append([]byte("#cloud-config\n"), data...)}
	if network != "" {
		files["network-config"] = []byte(network)
	}
	for name, content := range files {
		if err := w.AddFile(bytes.NewReader(content), name); err != nil {
			return nil, fmt.Errorf("seed: %w", err)
		}
	}
	var out bytes.Buffer
	if err := w.WriteTo(&out, "cidata"); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return out.Bytes(), nil
}

// overlay puts what is in b into a, objects member by member.
func overlay(a, b map[string]any) {
	for k, v := range b {
		x, both := a[k].(map[string]any)
		y, ok := v.(map[string]any)
		if both && ok {
			overlay(x, y)
			continue
		}
		a[k] = v
	}
}
