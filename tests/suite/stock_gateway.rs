//! The stock gateway in front, as deploy/gateway/gateway.env starts it: no Prometheus, no NATS, nothing panics.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::gateway::Behind;
use crate::support::{Daemon, eventually, http::Client, images};
use crate::{linux_only, needs_browser, needs_root, needs_stock};

impl Behind {
    #[track_caller]
    fn deploy(&self, name: &str) {
        let spec = json!({"service": name, "image": images::PROBE, "labels": {"com.openfaas.scale.max": "5"}});
        self.gateway.json("POST", "/system/functions", &spec).expect(202);
        eventually("a replica", || (self.daemon.available(name) == 1).then_some(()));
    }

    #[track_caller]
    fn listed(&self, name: &str) -> Value {
        let all = self.gateway.get("/system/functions").expect(200).value();
        let found = all.as_array().expect("a list").iter().find(|function| function["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {all}")).clone()
    }

    /// A handler of the gateway that panics closes the connection; it says so only in its log.
    #[track_caller]
    fn has_not_panicked(&self) {
        let log = self.log();
        assert!(!log.contains("panic") && self.has_lived_on(), "{log}");
    }
}

#[test]
fn functions_are_deployed_listed_with_their_calls_scaled_and_deleted() {
    needs_root!();
    let program = needs_stock!("openfaas-gateway");
    let stock = Behind::start(&program, Daemon::with(), &[]);
    assert_eq!(stock.gateway.get("/system/functions").expect(200).value(), json!([]));
    stock.deploy("f");
    stock.deploy("idle");
    for _ in 0..3 {
        let answer = stock.gateway.request("POST", "/function/f.openfaas-fn/x?q").body("hello").send().expect(200);
        assert_eq!(answer.value()["body"], "hello");
        assert!(answer.header("x-call-id").is_some());
    }
    let listed = stock.listed("f");
    assert_eq!((listed["invocationCount"].as_f64(), &listed["availableReplicas"]), (Some(3.0), &json!(1)), "{listed}");
    assert_eq!(stock.listed("idle")["invocationCount"].as_f64().unwrap_or(0.0), 0.0);
    stock.gateway.json("POST", "/system/scale-function/f", &json!({"serviceName": "f", "replicas": 3})).expect(202);
    assert_eq!(stock.daemon.available("f"), 3, "the call returned when they were ready");
    assert_eq!(stock.gateway.get("/system/function/f").expect(200).value()["replicas"], 3);
    let removal = json!({"functionName": "f"});
    stock.gateway.json("DELETE", "/system/functions", &removal).expect(202);
    assert_eq!(stock.daemon.list("openfaas-fn"), ["idle"]);
    assert_eq!(stock.gateway.get("/system/functions").expect(200).value().as_array().map(Vec::len), Some(1));
    stock.has_not_panicked();
}

#[test]
fn a_function_at_zero_is_started_by_a_call_through_the_gateway() {
    needs_root!();
    let program = needs_stock!("openfaas-gateway");
    for scale_from_zero in ["false", "true"] {
        let stock = Behind::start(&program, Daemon::with(), &[("scale_from_zero", scale_from_zero)]);
        stock.deploy("f");
        stock.daemon.scale("f", 0).expect(202);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| stock.gateway.get("/function/f.openfaas-fn").expect(200));
            }
        });
        assert_eq!(stock.daemon.available("f"), 1);
        stock.has_not_panicked();
    }
}

/// The gateway cuts what lasts longer than its write_timeout; the provider's stream ends by itself before.
#[test]
fn a_log_that_is_followed_ends_before_the_gateway_cuts_it() {
    needs_root!();
    let program = needs_stock!("openfaas-gateway");
    let options = Daemon::with().set("write_timeout = \"3s\"");
    let stock = Behind::start(&program, options, &[("write_timeout", "3s"), ("upstream_timeout", "3s")]);
    stock.deploy("f");
    let log = stock.gateway.get("/system/logs?name=f&follow=true").expect(200).text();
    assert!(log.contains("probe is listening"), "{log}");
    stock.gateway.get("/function/f").expect(200);
    stock.has_not_panicked();
}

/// Its own page, in a real browser, as a person uses it.
#[test]
fn its_page_deploys_invokes_and_deletes() {
    needs_root!();
    linux_only!("drives a browser on this machine");
    needs_browser!();
    let program = needs_stock!("openfaas-gateway");
    needs_stock!("openfaas-gateway-assets");
    let stock = Behind::start(&program, Daemon::with(), &[]);
    let browser = Browser::start();
    browser.open(&format!("http://admin:secret@{}/ui/", stock.gateway.address));
    browser.click(".blankslate button");
    browser.click("md-dialog md-tab-item:nth-child(2)");
    browser.fill("[name=dockerImage]", images::PROBE);
    browser.fill("[name=serviceName]", "greeter");
    browser.click("md-dialog-actions button.md-primary");
    browser.shows("md-list-item.md-3-line", "greeter");
    assert_eq!(stock.daemon.available("greeter"), 1);
    browser.click("md-list-item.md-3-line button");
    browser.fill("[ng-model='invocation.request']", "hello");
    browser.click("[ng-click='fireRequest()']:not([disabled])");
    browser.holds("[ng-model=invocationStatus]", "200");
    browser.holds("[ng-model=invocationResponse]", "\"body\": \"hello\"");
    // It reads the count again every few seconds.
    browser.holds("md-card input[value='1']", "1");
    browser.picture("stock-page");
    browser.click("[ng-click='deleteFunction()']");
    browser.click("md-dialog .md-confirm-button");
    eventually("the function is gone", || stock.daemon.list("openfaas-fn").is_empty().then_some(()));
    stock.has_not_panicked();
}

#[test]
fn who_has_not_the_password_gets_past_neither() {
    needs_root!();
    let program = needs_stock!("openfaas-gateway");
    let stock = Behind::start(&program, Daemon::with(), &[]);
    for credentials in [None, Some("admin:wrong".to_owned())] {
        for address in [stock.gateway.address, stock.daemon.http.address] {
            Client { address, credentials: credentials.clone() }.get("/system/functions").expect(401);
        }
    }
}

#[test]
fn the_provider_answers_the_gateway_s_question_and_no_other() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f").expect(200);
    let ask = |query: &str| daemon.http.get(&format!("/api/v1/query?query={query}"));
    let query =
        "sum%28gateway_function_invocation_total%7Bfunction_name%3D~%22.*.openfaas-fn%22%7D%29+by+%28function_name%29";
    let answer = ask(query).expect(200).value();
    assert_eq!((&answer["status"], &answer["data"]["resultType"]), (&json!("success"), &json!("vector")));
    let result = &answer["data"]["result"];
    assert_eq!(result[0]["metric"], json!({"function_name": "f.openfaas-fn"}));
    assert_eq!(result[0]["value"][1], "1");
    let other = query.replace("openfaas-fn", "other");
    assert_eq!(ask(&other).expect(200).value()["data"]["result"], json!([]));
    let form = daemon.http.request("POST", "/api/v1/query").body(format!("query={query}")).send().expect(200).value();
    assert_eq!(form["data"]["result"][0]["value"][1], "1");
    assert_eq!(ask("up").expect(400).value()["status"], "error");
    ask("").expect(400);
}
