//! A real Prometheus, with the files that are shipped for it: configuration, rules, dashboard.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Daemon, eventually, eventually_within, parts, platform};
use crate::{needs_program, needs_root};

fn shipped(name: &str) -> PathBuf {
    parts::project().join("deploy").join(name)
}

/// Runs promtool, which must be content.
#[track_caller]
fn promtool(directory: &Path, arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("running promtool");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("writing to promtool");
    let out = child.wait_with_output().expect("waiting for promtool");
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {arguments:?}: {told}");
}

#[test]
fn shipped_rules_fire_when_they_should_and_only_then() {
    needs_program!("promtool", "tools/setup.sh observe");
    promtool(&shipped("prometheus"), &["check", "rules", "faas-jails.rules.yml"], "");
    promtool(&shipped("prometheus"), &["test", "rules", "faas-jails.rules.test.yml"], "");
    promtool(&shipped("prometheus"), &["check", "config", "prometheus.yml"], "");
}

#[test]
fn metrics_are_as_promtool_wants_them() {
    needs_root!();
    needs_program!("promtool", "tools/setup.sh observe");
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f").expect(200);
    daemon.http.get("/system/info").expect(200);
    promtool(Path::new("."), &["check", "metrics"], &daemon.http.get("/metrics").expect(200).text());
}

#[test]
fn targets_are_every_ready_replica_unless_the_function_says_otherwise() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    daemon.deploy(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("pair", 2);
    daemon.deploy(json!({"service": "quiet", "annotations": {"prometheus.io/scrape": "false"}}));
    let own = json!({"prometheus.io/port": "8080", "prometheus.io/path": "/own"});
    daemon.deploy(json!({"service": "own", "annotations": own}));
    daemon.create(json!({"service": "asleep"})).expect(202);
    daemon.scale("asleep", 0).expect(202);
    let mut addresses: Vec<String> = daemon
        .http
        .get("/system/replicas")
        .expect(200)
        .value()
        .as_array()
        .expect("a list")
        .iter()
        .filter(|r| r["name"] == "pair")
        .map(|r| r["address"].as_str().expect("an address").replace(":8080", ":8081"))
        .collect();
    addresses.sort();
    eventually("the targets are those of the functions that run", || {
        let groups = daemon.http.get("/system/targets").expect(200).value();
        let groups = groups.as_array().expect("a list").clone();
        let names: Vec<&Value> = groups.iter().map(|g| &g["labels"]["function_name"]).collect();
        (names == ["own.openfaas-fn", "pair.openfaas-fn"]).then_some(())?;
        let mut targets: Vec<&str> = groups[1]["targets"].as_array()?.iter().filter_map(Value::as_str).collect();
        targets.sort_unstable();
        assert_eq!(targets, addresses);
        assert_eq!(groups[0]["labels"]["__metrics_path__"], "/own");
        assert!(groups[0]["targets"][0].as_str().is_some_and(|t| t.ends_with(":8080")), "{groups:?}");
        Some(())
    });
    let stranger = Client::new(daemon.http.address);
    stranger.get("/system/targets").expect(401);
}

/// A Prometheus of this test's own, ended when dropped.
struct Prometheus {
    child: Child,
    http: Client,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts it with the shipped configuration, in which only what names this daemon is different.
    fn start(daemon: &Daemon) -> Self {
        let dir = daemon.scratch().join("prometheus");
        fs::create_dir(&dir).expect("making Prometheus's directory");
        let password = dir.join("password");
        fs::write(&password, "secret").expect("writing the password");
        let config = fs::read_to_string(shipped("prometheus/prometheus.yml")).expect("reading prometheus.yml");
        for setting in ["127.0.0.1:8080", "127.0.0.1:8081", "/etc/faas-jails/secrets/basic-auth-password", ": 15s"] {
            assert!(config.contains(setting), "{setting}");
        }
        let config = config
            .replace("127.0.0.1:8081", &daemon.http.address.to_string())
            .replace("127.0.0.1:8080", &daemon.gateway.address.to_string())
            .replace("/etc/faas-jails/secrets/basic-auth-password", &password.display().to_string())
            .replace(": 15s", ": 500ms");
        fs::write(dir.join("prometheus.yml"), config).expect("writing prometheus.yml");
        fs::copy(shipped("prometheus/faas-jails.rules.yml"), dir.join("faas-jails.rules.yml"))
            .expect("copying the rules");
        let log = fs::File::create(dir.join("log")).expect("making the log");
        let mut command = Command::new("prometheus");
        command
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        platform::ends_with_us(&mut command);
        let child = command.spawn().expect("starting Prometheus");
        let address = eventually("Prometheus listens", || {
            let log = fs::read_to_string(dir.join("log")).ok()?;
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
            line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
        });
        Self { child, http: Client::new(address) }
    }

    /// What a query finds.
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let answer = self.http.get(&format!("/api/v1/query?query={encoded}"));
        let value = answer.value();
        assert_eq!(value["status"], "success", "{query}: {value}");
        value["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

/// Every query of the dashboard, as Grafana would send it.
fn dashboard_queries() -> Vec<String> {
    let text = fs::read_to_string(shipped("grafana/faas-jails.json")).expect("reading the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut queries: Vec<String> = targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(inside) = variable["definition"].as_str().and_then(|d| d.strip_prefix("label_values(")) {
            let (metric, label) = inside.trim_end_matches(')').split_once(", ").expect("a metric and a label");
            queries.push(format!("count by ({label}) ({metric})"));
        }
    }
    queries.iter().map(|q| q.replace("$__rate_interval", "20s").replace("$function", ".*")).collect()
}

#[test]
fn prometheus_scrapes_the_daemon_and_every_query_of_the_dashboard_has_data() {
    needs_root!();
    needs_program!("prometheus", "tools/setup.sh observe");
    let daemon = Daemon::with().credentials("admin:secret").start();
    daemon.deploy(json!({"service": "f", "envVars": {"METRICS": "1"}}));
    daemon.deploy(json!({"service": "asleep"}));
    let prometheus = Prometheus::start(&daemon);
    let queries = dashboard_queries();
    assert!(queries.len() > 15, "{queries:?}");
    let mut missing = queries.clone();
    let stranger = Client::new(daemon.http.address);
    // Rates need two scrapes, and a loaded machine scrapes late.
    eventually_within(Duration::from_secs(120), "every query has data", || {
        // Something happens all the time: calls, starts that a request waits for, ends of replicas.
        daemon.call("f/spin?ms=20").expect(200);
        daemon.scale("asleep", 0).expect(202);
        eventually("it is asleep", || (daemon.available("asleep") == 0).then_some(()));
        daemon.call("asleep").expect(200);
        daemon.gateway.get("/function/f").expect(200);
        daemon.gateway.request("POST", "/async-function/f/sleep?ms=1500").body("").send().expect(202);
        stranger.get("/system/functions").expect(401);
        let has_data = |query: &String| {
            let found = prometheus.query(query);
            found.iter().any(|sample| sample["value"][1].as_str().is_some_and(|value| value != "NaN"))
        };
        missing.retain(|query| !has_data(query));
        missing.is_empty().then_some(())
    });
    // The function's own metrics came by service discovery.
    let found = prometheus.query("http_requests_total{job=\"functions\"}");
    assert_eq!(found[0]["metric"]["function_name"], "f.openfaas-fn", "{found:?}");
    // The rules are loaded, and none of them fires but that of the function without metrics, if at all.
    let rules = prometheus.http.get("/api/v1/rules").expect(200).value();
    let names: Vec<&str> = rules["data"]["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| {
            assert_eq!(rule["health"].as_str().filter(|h| *h != "unknown").unwrap_or("ok"), "ok", "{rule}");
            rule["name"].as_str().expect("a name")
        })
        .collect();
    assert!(names.contains(&"FaasJailsDown") && names.len() >= 9, "{names:?}");
}
