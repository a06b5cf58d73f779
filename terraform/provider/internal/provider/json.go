package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// rawJSON keeps an answer until somebody knows what is in it.
type rawJSON []byte

func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

func (r rawJSON) decode(into any) error { return json.Unmarshal(r, into) }

// importID splits agent/part/part.
func importID(id string, parts int) ([]string, error) {
	f := strings.Split(id, "/")
	if len(f) != parts+1 || strings.Contains(id, "//") {
		return nil, fmt.Errorf("the id is host:port of the agent and %d names, with slashes between them, not %q", parts, id)
	}
	return f, nil
}

func strs(ctx context.Context, v attr.Value, diags *diag.Diagnostics) []string {
	var out []string
	if v.IsNull() || v.IsUnknown() {
		return nil
	}
	switch v := v.(type) {
	case types.List:
		diags.Append(v.ElementsAs(ctx, &out, false)...)
	case types.Set:
		diags.Append(v.ElementsAs(ctx, &out, false)...)
	}
	return out
}

func listOf(ctx context.Context, v []string, diags *diag.Diagnostics) types.List {
	if v == nil {
		v = []string{}
	}
	l, d := types.ListValueFrom(ctx, types.StringType, v)
	diags.Append(d...)
	return l
}

func setOf(ctx context.Context, v []string, diags *diag.Diagnostics) types.Set {
	if v == nil {
		v = []string{}
	}
	l, d := types.SetValueFrom(ctx, types.StringType, v)
	diags.Append(d...)
	return l
}

// unreadable is an answer that is not what the API's documentation says.
func unreadable(err error) diag.Diagnostics {
	return diag.Diagnostics{diag.NewErrorDiagnostic("the agent's answer cannot be read", err.Error())}
}
