//! Sky Island's admin API, its token, and its metrics.

use std::net::UdpSocket;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::needs_go;
use crate::support::sky::{HEADER, Sky, TOKEN, data};
use crate::support::{Daemon, eventually, images};

const ADMIN: [(&str, &str); 9] = [
    ("GET", "api-stats"),
    ("GET", "jails"),
    ("DELETE", "jails"),
    ("GET", "jail/1"),
    ("DELETE", "jail/1"),
    ("GET", "ips"),
    ("PUT", "ips"),
    ("GET", "network/ips"),
    ("PUT", "network/ip"),
];

#[test]
fn admin_routes_ask_for_the_token_and_health_does_not() {
    needs_go!();
    let sky = Sky::start();
    for (method, target) in ADMIN {
        let ask = |header: &str, token: &str| {
            let request = sky.http.request(method, &format!("/api/v1/admin/{target}"));
            request.header(header, token).body("{\"ip\": \"10.0.0.1\"}").send()
        };
        for (header, token) in
            [("X", "y"), (HEADER, ""), (HEADER, "wrong"), (HEADER, &TOKEN[1..]), ("Authorization", TOKEN)]
        {
            let answer = ask(header, token).expect(403);
            assert_eq!(answer.value(), json!({"error": "Forbidden"}), "{method} {target}");
        }
        assert_ne!(ask(HEADER, TOKEN).status, 403, "{method} {target}");
    }
    for target in ["/healthcheck", "/api/v1/healthcheck"] {
        let answer = sky.http.get(target).expect(200);
        assert_eq!(answer.body, b"", "{target}");
    }
    sky.admin("POST", "jails").expect(405);
    sky.admin("GET", "nothing").expect(404);
}

#[test]
fn without_a_token_nothing_is_served_and_beyond_loopback_running_needs_it_too() {
    needs_go!();
    let mut sky = Sky::prepare(Daemon::with(), "listen = \"0.0.0.0:0\"");
    let file = sky.dir.path().join("secrets/island-token");
    for (token, words) in
        [(None, "faas-jails init"), (Some(""), "one line"), (Some("asdfasdfasdfasdf"), "easily guessed")]
    {
        std::fs::remove_file(&file).ok();
        token.into_iter().for_each(|token| std::fs::write(&file, token).expect("writing the token"));
        sky.daemon.launch();
        assert!(!sky.daemon.await_exit().success());
        assert!(sky.daemon.log().contains(words), "{token:?}: {}", sky.daemon.log());
    }
    std::fs::remove_file(&file).expect("removing the token");
    // As init makes it. On FreeBSD it would make the machine ready, too: pf, devices, a service.
    if cfg!(target_os = "linux") {
        let out = sky.daemon.run(&["init"]);
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(told.contains("island token"), "{told}");
    } else {
        std::fs::write(&file, format!("{TOKEN}\n")).expect("writing the token");
    }
    sky.launch();
    sky.http.address.set_ip([127, 0, 0, 1].into());
    let (_repository, url) = sky.functions();
    let body = json!({"url": url, "call": "Encode(1, 2)"}).to_string();
    let answer = sky.ask(json!({"url": url, "call": "Encode(1, 2)"})).expect(403);
    assert_eq!(answer.value(), json!({"error": "Forbidden"}));
    assert_eq!(sky.git.requests(), 0);
    let text = std::fs::read_to_string(&file).expect("the token that init made");
    let token = text.lines().last().expect("a line");
    let answer = sky.http.request("POST", "/api/v1/function").header(HEADER, token).body(body).send();
    assert_eq!(data(&answer.expect(200)), "1.0/2.0");
}

/// While a function sleeps in a sandbox, what the admin API says of it.
#[test]
fn runs_are_listed_described_and_killed_and_functions_are_spared() {
    needs_go!();
    let sky = Sky::with(Daemon::with(), "exec_timeout = \"60s\"");
    let (_repository, url) = sky.functions();
    sky.daemon.load(&images::probe_archive(images::PROBE));
    sky.daemon.deploy(json!({"service": "spared"}));
    assert_eq!(sky.call(&url, "Sleep(1)"), "slept");
    assert_eq!(sky.admin("GET", "jails").expect(200).value(), json!({"jails": []}));
    let sleeping = |ip4: bool| sky.ask(json!({"url": url, "call": "Sleep(50000)", "ip4": ip4}));
    let listed = |count: usize| {
        eventually("a run is listed", || {
            let all = sky.admin("GET", "jails").expect(200).value()["jails"].as_array().expect("a list").clone();
            (all.len() == count).then_some(all)
        })
    };
    std::thread::scope(|scope| {
        let one = scope.spawn(|| sleeping(true));
        let jail = listed(1).remove(0);
        let keys: Vec<&String> = jail.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["OSRelease", "host", "hostname", "ip4", "ip6", "jid", "name", "path"]);
        let ip = jail["ip4"].as_str().expect("an address").to_owned();
        assert!(jail["name"].as_str().is_some_and(|name| name.starts_with(&sky.daemon.realm())), "{jail}");
        assert_eq!((&jail["host"], &jail["hostname"]), (&json!("new"), &json!("called")));
        let held = sky.admin("GET", "ips?state=unavailable").expect(200).value();
        assert!(held["unavailable"].as_array().is_some_and(|all| all.contains(&json!(ip))), "{held}");
        let holder = sky.admin("GET", "network/ips").expect(200).value()[&ip].as_str().map(str::to_owned);
        assert_eq!(
            STANDARD.decode(holder.expect("a holder")).expect("base64"),
            jail["name"].as_str().unwrap().as_bytes()
        );
        let refused = sky.http.request("PUT", "/api/v1/admin/network/ip").header(HEADER, TOKEN);
        refused.body(json!({"ip": ip, "state": 0}).to_string()).send().expect_error(409, &[&ip, "in use"]);
        let jid = jail["jid"].as_i64().expect("a number");
        let details = sky.admin("GET", &format!("jail/{jid}")).expect(200).value();
        assert_eq!(details, json!({"details": jail}));
        let deleted = sky.admin("DELETE", &format!("jail/{jid}")).expect(200).value();
        assert_eq!(deleted, json!({"deleted": jid}));
        one.join().expect("no panic").expect_error(500, &["killed through the admin API"]);
        sky.admin("GET", &format!("jail/{jid}")).expect_error(404, &["no function runs in a jail"]);
        sky.admin("DELETE", &format!("jail/{jid}")).expect(404);
        for bad in ["x", "1.5", "99999999999", "1/2"] {
            let answer = sky.admin("GET", &format!("jail/{bad}"));
            assert!(matches!(answer.status, 400 | 404), "{bad}: {}", answer.status);
            // One JSON body, and no details of nothing.
            assert_eq!(answer.value().as_object().expect("an object").len(), 1, "{}", answer.text());
        }
        let two = [scope.spawn(|| sleeping(false)), scope.spawn(|| sleeping(false))];
        assert!(listed(2).iter().all(|jail| jail["ip4"] == "disable"));
        assert_eq!(sky.admin("DELETE", "jails").expect(200).body, b"");
        for one in two {
            one.join().expect("no panic").expect_error(500, &["killed through the admin API"]);
        }
    });
    sky.daemon.call("spared").expect(200);
    assert_eq!(sky.daemon.traces().replica_names().len(), 1);
}

#[test]
fn addresses_come_back_after_each_run_and_are_told_while_they_come_and_go() {
    needs_go!();
    let mut sky = Sky::prepare(Daemon::with(), "");
    // Five addresses.
    let config = std::fs::read_to_string(&sky.daemon.config).expect("the configuration");
    std::fs::write(&sky.daemon.config, config.replace(".0/24\"", ".0/29\"")).expect("writing the configuration");
    sky.launch();
    let (_repository, url) = sky.functions();
    let call = || sky.ask(json!({"url": url, "call": "Encode(1, 2)", "ip4": true}));
    call().expect(200);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| (0..5).for_each(|_| drop(call().expect(200))))).collect();
        for _ in 0..20 {
            let all = sky.admin("GET", "ips").expect(200).value();
            assert_eq!(all.as_object().expect("an object").len(), 5, "{all}");
            let of = |state: &str| -> Vec<Value> {
                let answer = sky.admin("GET", &format!("ips?state={state}")).expect(200).value();
                assert_eq!(answer.as_object().expect("an object").len(), 1);
                answer[state].as_array().expect("a list").clone()
            };
            assert!(of("available").len() <= 5 && of("unavailable").len() <= 3);
        }
        callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
    });
    let all = sky.admin("GET", "ips").expect(200).value();
    assert!(all.as_object().expect("an object").values().all(Value::is_null), "{all}");
    sky.admin("GET", "ips?state=lost").expect_error(422, &["{\"error\":\"unrecognized IP state\"}"]);
    let free = |body: &str| {
        let request = sky.http.request("PUT", "/api/v1/admin/ips").header(HEADER, TOKEN);
        request.body(body).send()
    };
    let address = all.as_object().and_then(|all| all.keys().next().cloned()).expect("an address");
    assert_eq!(free(&json!({"ip": address, "state": 1}).to_string()).expect(200).body, b"");
    for (body, status, words) in [
        (r#"{"ip": "fe80::1"}"#, 400, "invalid IP4 address"),
        (r#"{"ip": "not an address"}"#, 400, "invalid IP4 address"),
        (r#"{"ip": ""}"#, 400, "invalid IP4 address"),
        (r#"{"ip": 7}"#, 400, "Bad Request"),
        (r#"{"ip": "10.0.0.1", "state": 256}"#, 400, "Bad Request"),
        ("{", 400, "Bad Request"),
        (r#"{"ip": "192.0.2.1"}"#, 404, "192.0.2.1"),
    ] {
        free(body).expect_error(status, &[words]);
    }
}

#[test]
fn statistics_have_every_key_of_sky_island_s() {
    needs_go!();
    let sky = Sky::start();
    sky.http.get("/healthcheck").expect(200);
    sky.http.get("/nothing").expect(404);
    sky.http.get("/api/v1/admin/jails").expect(403);
    let stats = sky.admin("GET", "api-stats").expect(200).value();
    for key in [
        "pid",
        "uptime_sec",
        "unixtime",
        "count",
        "total_count",
        "total_response_time_sec",
        "average_response_time_sec",
    ] {
        assert!(stats[key].is_number(), "{key}: {stats}");
    }
    for key in ["uptime", "time", "total_response_time", "average_response_time"] {
        assert!(stats[key].is_string(), "{key}: {stats}");
    }
    assert_eq!(stats["pid"], sky.daemon.pid());
    assert_eq!(stats["total_status_code_count"], json!({"200": 1, "403": 1, "404": 1}));
    assert_eq!(stats["total_count"], 3);
}

#[test]
fn statsd_metrics_go_to_the_configured_address_under_sky_island_s_names() {
    needs_go!();
    let listener = UdpSocket::bind("127.0.0.1:0").expect("binding a port");
    listener.set_read_timeout(Some(Duration::from_millis(500))).expect("setting a timeout");
    let sky = Sky::with(Daemon::with(), &format!("statsd = \"{}\"", listener.local_addr().expect("bound")));
    let (_repository, url) = sky.functions();
    sky.ask(json!({"url": url, "call": "Encode(1, 2)", "ip4": true})).expect(200);
    sky.ask(json!({"url": url, "call": "Encode(1, 2)", "cache_bust": true})).expect(200);
    sky.admin("GET", "jails").expect(200);
    let repository = url.replace(':', "_");
    let mut missing = vec![
        "network.populate_pool:|ms".to_owned(),
        "network.allocate:|ms".into(),
        format!("network.{}", sky.daemon.host().rsplit_once('.').expect("an address").0),
        "repo.clone:|ms".into(),
        "repo.remove:|ms".into(),
        format!("repo.{repository}:1|h"),
        "filesystem.dataset_create:|ms".into(),
        "jail.create_jail_time:|ms".into(),
        "jail.remove_jail_time:|ms".into(),
        "jail.created:1|h".into(),
        "jail.removed:1|h".into(),
        "handlers.function.run:1|h".into(),
        "handlers.jail.running:1|h".into(),
    ];
    let mut buffer = [0; 2048];
    while let Ok(length) = listener.recv(&mut buffer) {
        let metric = std::str::from_utf8(&buffer[..length]).expect("text");
        missing.retain(|wanted| match wanted.split_once(":|") {
            Some((name, kind)) => {
                let value =
                    metric.strip_prefix(&format!("{name}:")).and_then(|rest| rest.strip_suffix(&format!("|{kind}")));
                value.is_none_or(|value| value.parse::<u64>().is_err())
            }
            None => !metric.starts_with(wanted.as_str()),
        });
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn sigterm_ends_what_runs_and_leaves_nothing() {
    needs_go!();
    let mut sky = Sky::with(Daemon::with(), "exec_timeout = \"60s\"");
    let (_repository, url) = sky.functions();
    assert_eq!(sky.call(&url, "Sleep(1)"), "slept");
    let (http, body) = (sky.http.clone(), json!({"url": url, "call": "Sleep(50000)"}));
    let caller = std::thread::spawn(move || http.request("POST", "/api/v1/function").body(body.to_string()).try_send());
    eventually("it runs", || {
        let jails = sky.admin("GET", "jails").expect(200).value();
        (jails["jails"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    assert!(sky.daemon.stop().success());
    assert!(sky.daemon.traces().replica_names().is_empty(), "{}", sky.daemon.traces());
    let answer = caller.join().expect("no panic");
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 503), "{answer:?}");
}
