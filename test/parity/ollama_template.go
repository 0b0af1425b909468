// Renders templates of Ollama with Go's own package: a list of {template, messages, system} on standard input, the texts on standard output.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role    string
	Content string
}

type job struct {
	Template string
	System   string
	Messages []message
}

func main() {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, one := range jobs {
		parsed, err := template.New("t").Parse(one.Template)
		if err != nil {
			panic(err)
		}
		var out strings.Builder
		if err := parsed.Execute(&out, map[string]any{"Messages": one.Messages, "System": one.System}); err != nil {
			panic(err)
		}
		texts = append(texts, out.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}
