package main

import (
	"slices"
	"strings"
)

// didYouMean returns a text such as "; did you mean A or B?" with the known names that are most similar to a misspelt
// word, each after prefix. If no name is similar, it returns "".
func didYouMean(word, prefix string, known []string) string {
	var list []string
	for _, name := range similar(word, known) {
		list = append(list, prefix+name)
	}
	if len(list) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(list, " or ") + "?"
}

const (
	maxSuggestions = 3 // maximum number of names in a message
	minPart        = 3 // minimum number of letters of a word that is looked for at the beginning and end of names
)

// similar returns at most maxSuggestions known names at the least distance from a word. If all are too distant and the
// word has at least minPart letters, it returns names that begin or end with the word, and names with which the word
// begins.
func similar(word string, known []string) (list []string) {
	word = plainName(word)
	least := max(1, len(word)/4) // names at a greater distance are not similar
	for _, name := range known {
		switch d := distance(word, plainName(name)); {
		case d < least:
			least, list = d, []string{name}
		case d == least:
			list = append(list, name)
		}
	}
	if len(list) == 0 && len(word) >= minPart {
		for _, name := range known {
			if n := plainName(name); strings.HasPrefix(n, word) || strings.HasSuffix(n, word) || strings.HasPrefix(word, n) {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxSuggestions)]
}

// plainName returns a name in the form in which names are compared: in lower case, with hyphens instead of underscores.
func plainName(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// distance returns the least number of mistakes that turn a into b if each letter takes part in at most one mistake. A
// mistake inserts, deletes or replaces a letter, or exchanges two neighbouring letters.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
