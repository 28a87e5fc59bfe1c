// http - an HTTP handler over a map, served by two processes at once: what is PUT to one can be GOT from the other.
//
//	go run ./http [directory]              the demonstration
//	go run ./http directory server         one server; its address is the first line it prints
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"opendiskmap.example/opendiskmap"
)

// handler serves a map: PUT, GET and DELETE /key; POST /key counts. Any number of requests run at once.
type handler struct {
	pages  *opendiskmap.StringStringMap
	visits *opendiskmap.StringU64Map
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/")
	var err error
	ok := true
	switch r.Method {
	case http.MethodPut:
		var body []byte
		if body, err = io.ReadAll(r.Body); err == nil {
			err = h.pages.Put(key, string(body))
		}
	case http.MethodGet: // Sent from where it lies in the map.
		ok, err = h.pages.View(key, func(page []byte) error { _, err := w.Write(page); return err })
	case http.MethodDelete:
		ok, err = h.pages.Delete(key)
	case http.MethodPost: // However many processes count: nothing is lost.
		var n uint64
		if n, err = opendiskmap.Add(h.visits, key, 1); err == nil {
			fmt.Fprint(w, n)
		}
	}
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ok:
		http.NotFound(w, r)
	}
}

func serve(path string) {
	check(os.MkdirAll(path, 0o777))
	pages, err := opendiskmap.OpenStringString(path+"/pages", nil)
	check(err)
	visits, err := opendiskmap.OpenStringU64(path+"/visits", nil)
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println("http://" + listener.Addr().String())
	check(http.Serve(listener, handler{pages, visits}))
}

func main() {
	path := "pages.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if len(os.Args) > 2 {
		serve(path)
	}
	one, two := start(path), start(path)
	fmt.Println("PUT one:", request(http.MethodPut, one+"/greeting", "hello"))
	fmt.Println("GET two:", request(http.MethodGet, two+"/greeting", ""))
	fmt.Println("DELETE two:", request(http.MethodDelete, two+"/greeting", ""))
	fmt.Println("GET one:", request(http.MethodGet, one+"/greeting", ""))
	done := make(chan bool)
	for _, server := range []string{one, two, one, two} {
		go func() {
			for range 25 {
				request(http.MethodPost, server+"/visitors", "")
			}
			done <- true
		}()
	}
	for range 4 {
		<-done
	}
	fmt.Println("POST one:", request(http.MethodPost, one+"/visitors", ""))
	for _, server := range servers {
		check(server.Process.Kill()) // No harm is done: what was put is there.
	}
}

var servers []*exec.Cmd

// start starts a server process and returns its address.
func start(path string) string {
	server := exec.Command(os.Args[0], path, "server")
	output, err := server.StdoutPipe()
	check(err)
	server.Stderr = os.Stderr
	check(server.Start())
	servers = append(servers, server)
	address, err := bufio.NewReader(output).ReadString('\n')
	check(err)
	return strings.TrimSpace(address)
}

func request(method, url, body string) string {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	check(err)
	response, err := http.DefaultClient.Do(r)
	check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(err)
	return strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", string(text)))
}

func check(err error) {
	if err != nil {
		for _, server := range servers {
			server.Process.Kill()
		}
		log.Fatal(err)
	}
}
