package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"path"
	"time"
)

// archive returns the archive of a platform: a .tar.gz file, or a .zip file for Windows, with the given files in one
// folder.
func (r *release) archive(p platform, files []entry) (entry, error) {
	folder := fmt.Sprintf("seqembed-%s-%s", r.version, p.name())
	pack, name := tarGz, folder+".tar.gz"
	if p.goos == "windows" {
		pack, name = zipFile, folder+".zip"
	}
	var below []entry
	for _, f := range files {
		below = append(below, entry{path.Join(folder, f.name), f.content, f.mode})
	}
	content, err := pack(below, r.date)
	return entry{name, content, 0o644}, err
}

// tarGz packs files in the given order. The archive does not depend on the machine: all files have the given date and
// no owner.
func tarGz(files []entry, date time.Time) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: int64(f.mode), ModTime: date, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	err = z.Close()
	return b.Bytes(), err
}

// zipFile packs files in the given order. A zip file cannot hold a date before 1980, so an earlier date becomes
// 1980-01-01.
func zipFile(files []entry, date time.Time) ([]byte, error) {
	if first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); date.Before(first) {
		date = first
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: date}
		h.SetMode(f.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}
