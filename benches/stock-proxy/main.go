// stock-proxy serves /function/NAME with the proxy of github.com/openfaas/faas-provider, as it is,
// in front of one fixed upstream: the baseline that the benchmarks compare the invoke path with.
//
// Environment:
//
//	upstream      where every function is, host:port (required)
//	port          TCP port to listen on (8080); faas-provider binds every address, so run it on a
//	              machine or in a network namespace where that is wanted
//	listen        host:port; when set, only that address is bound, and only /function/ is served,
//	              by the same handler without faas-provider's own router
//	max_idle      idle upstream connections kept (1024), in all and for one host
package main

import (
	"context"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/gorilla/mux"
	bootstrap "github.com/openfaas/faas-provider"
	"github.com/openfaas/faas-provider/proxy"
	"github.com/openfaas/faas-provider/types"
)

// fixed resolves every name to one address.
type fixed url.URL

func (f fixed) Resolve(string) (url.URL, error) { return url.URL(f), nil }

func number(name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatalf("stock-proxy: %s=%q is not a number", name, text)
	}
	return n
}

func main() {
	upstream := os.Getenv("upstream")
	if upstream == "" {
		log.Fatal("stock-proxy: set upstream=host:port")
	}
	port := number("port", 8080)
	idle := number("max_idle", 1024)
	config := types.FaaSConfig{
		TCPPort:             &port,
		ReadTimeout:         time.Minute,
		WriteTimeout:        time.Minute,
		MaxIdleConns:        idle,
		MaxIdleConnsPerHost: idle,
	}
	handler := proxy.NewHandlerFunc(config, fixed{Scheme: "http", Host: upstream}, false)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if listen := os.Getenv("listen"); listen != "" {
		router := mux.NewRouter()
		const name = "/function/{name:[" + bootstrap.NameExpression + "]+}"
		router.HandleFunc(name, handler)
		router.HandleFunc(name+"/", handler)
		router.HandleFunc(name+"/{params:.*}", handler)
		server := &http.Server{Addr: listen, Handler: router, ReadTimeout: config.ReadTimeout, WriteTimeout: config.WriteTimeout}
		go func() {
			<-ctx.Done()
			_ = server.Close()
		}()
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatalf("stock-proxy: %v", err)
		}
		return
	}

	absent := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "stock-proxy only invokes", http.StatusNotImplemented)
	}
	bootstrap.Serve(ctx, &types.FaaSHandlers{
		FunctionProxy: handler, FunctionLister: absent, DeployFunction: absent, DeleteFunction: absent,
		UpdateFunction: absent, FunctionStatus: absent, ScaleFunction: absent, Info: absent,
		Secrets: absent, Logs: absent, ListNamespaces: absent, Health: absent,
	}, &config)
}
