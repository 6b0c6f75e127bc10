package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

func asJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

// echoRequest answers with everything about the request.
func echoRequest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	asJSON(w, map[string]any{
		"method":           r.Method,
		"path":             r.URL.EscapedPath(),
		"query":            r.URL.RawQuery,
		"uri":              r.RequestURI,
		"host":             r.Host,
		"proto":            r.Proto,
		"headers":          r.Header,
		"contentLength":    r.ContentLength,
		"transferEncoding": r.TransferEncoding,
		"body":             string(body),
		"bodyError":        problem,
		"remote":           r.RemoteAddr,
	})
}

// echoBody sends back what it reads, as it reads it.
func echoBody(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	control := http.NewResponseController(w)
	control.EnableFullDuplex()
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			control.Flush()
		}
		if err != nil {
			return
		}
	}
}

// stream writes n pieces, gap milliseconds apart, each flushed.
func stream(w http.ResponseWriter, r *http.Request, kind string, piece func(int) string) {
	w.Header().Set("Content-Type", kind)
	control := http.NewResponseController(w)
	control.Flush()
	for i := range arg(r, "n", 3) {
		if i > 0 {
			select {
			case <-time.After(time.Duration(arg(r, "gap", 100)) * time.Millisecond):
			case <-r.Context().Done():
				fmt.Println("client went away after", i)
				return
			}
		}
		io.WriteString(w, piece(i))
		control.Flush()
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	stream(w, r, "text/event-stream", func(i int) string { return fmt.Sprintf("data: event %d\n\n", i) })
}

func lines(w http.ResponseWriter, r *http.Request) {
	stream(w, r, "application/x-ndjson", func(i int) string { return fmt.Sprintf("{\"n\":%d}\n", i) })
}

func chunked(w http.ResponseWriter, r *http.Request) {
	stream(w, r, "text/plain", func(i int) string { return fmt.Sprintf("chunk %d\n", i) })
}

// big writes kb kilobytes of the letter x with a length.
func big(w http.ResponseWriter, r *http.Request) {
	kb := arg(r, "kb", 1)
	w.Header().Set("Content-Length", fmt.Sprint(kb<<10))
	block := bytes.Repeat([]byte("x"), 1<<10)
	for range kb {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// sink reads the body and tells its length; with ms it waits before it begins.
func sink(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Duration(arg(r, "ms", 0)) * time.Millisecond)
	n, err := io.Copy(io.Discard, r.Body)
	asJSON(w, map[string]any{"bytes": n, "error": fmt.Sprint(err)})
}

func redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/elsewhere?a=1", arg(r, "code", http.StatusFound))
}

func status(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Probe", "yes")
	w.WriteHeader(arg(r, "code", 200))
	if code := arg(r, "code", 200); code != 204 && code != 304 {
		fmt.Fprintf(w, "status %d\n", code)
	}
}

// noType answers without Content-Type.
func noType(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = nil
	io.WriteString(w, "no type")
}

func trailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	io.WriteString(w, "body")
	w.Header().Set("X-Sum", "4")
}

func take(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	return conn, buffered
}

// garbage answers something that is not HTTP.
func garbage(w http.ResponseWriter, _ *http.Request) {
	conn, _ := take(w)
	conn.Write([]byte("\x00\x01\x02 this is not HTTP\r\n\r\n"))
	conn.Close()
}

// hang never answers, until the client goes away.
func hang(_ http.ResponseWriter, r *http.Request) {
	fmt.Println("hang: waiting")
	<-r.Context().Done()
	fmt.Println("hang: client went away")
}

// reset closes the connection with RST and without an answer.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _ := take(w)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// partial promises 100 bytes, sends 10 and closes.
func partial(w http.ResponseWriter, _ *http.Request) {
	conn, _ := take(w)
	conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"))
	conn.Close()
}

// webSocket does the handshake of RFC 6455 and echoes unfragmented frames up to 64 kB.
func webSocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		http.Error(w, "expected a websocket handshake", http.StatusBadRequest)
		return
	}
	conn, buffered := take(w)
	defer conn.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for {
		opcode, payload, err := readFrame(buffered)
		if err != nil {
			fmt.Println("websocket: client went away")
			return
		}
		head := []byte{0x80 | opcode, byte(len(payload))}
		if len(payload) > 125 {
			head = []byte{0x80 | opcode, 126, byte(len(payload) >> 8), byte(len(payload))}
		}
		conn.Write(append(head, payload...))
		if opcode == 8 {
			return
		}
	}
}

func readFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return
	}
	length := int(head[1] & 0x7f)
	if length >= 126 {
		var wide [2]byte
		if _, err = io.ReadFull(r, wide[:]); err != nil {
			return
		}
		length = int(wide[0])<<8 | int(wide[1])
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return
		}
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, err
}

// watchdogMetrics are of-watchdog's, with numbers that only grow.
func watchdogMetrics(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "# TYPE http_requests_total counter\nhttp_requests_total{code=\"200\",method=\"get\"} %d\n",
		int(time.Since(started).Seconds()*10))
}
