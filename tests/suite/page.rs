//! The page at /ui/, in a real browser.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::{Daemon, eventually, images};
use crate::{linux_only, needs_browser, needs_root};

fn open(daemon: &Daemon) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://admin:secret@{}/ui/", daemon.gateway.address));
    browser
}

/// All that the page is for, in the order in which a person would do it.
#[test]
fn a_function_is_deployed_called_scaled_and_deleted_on_the_page() {
    needs_root!();
    linux_only!("drives a browser on this machine");
    needs_browser!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    let browser = open(&daemon);
    browser.shows("#empty", "No function yet");
    browser.shows("#about", env!("CARGO_PKG_VERSION"));

    browser.click("#deploy-new");
    browser.fill("[name=image]", images::PROBE);
    browser.fill("[name=service]", "greeter");
    browser.fill("[name=envVars]", "COLOUR=blue\nSHAPE=a=b");
    browser.fill("[name=memory]", "128Mi");
    browser.click("#deploy button[value=go]");
    browser.shows("#rows", "greeter");
    browser.shows("#rows", "ready");
    browser.shows("#facts", "COLOUR=blue");
    let status = daemon.status("greeter");
    assert_eq!(status["envVars"], json!({"COLOUR": "blue", "SHAPE": "a=b"}));
    assert_eq!(status["limits"], json!({"memory": "128Mi"}));

    browser.fill("#path", "/echo");
    browser.fill("#body", "<b>hello</b>");
    browser.click("#invoke button");
    browser.shows("#status", "200");
    browser.shows("#answer", "<b>hello</b>");
    eventually("the count of calls", || {
        browser.text("#rows td:nth-child(4)").parse::<u32>().is_ok_and(|n| n >= 1).then_some(())
    });
    browser.picture("page");

    browser.fill("#replicas", "2");
    browser.click("#scale button");
    browser.shows("#rows", "2 / 2");
    browser.fill("#replicas", "0");
    browser.click("#scale button");
    browser.shows("#rows", "at zero");

    browser.click("#update");
    browser.fill("[name=envVars]", "COLOUR=red");
    browser.click("#deploy button[value=go]");
    browser.shows("#facts", "COLOUR=red");

    browser.click("#delete");
    browser.shows("#sure p", "greeter");
    browser.click("#sure button[value=go]");
    browser.shows("#empty", "No function yet");
    daemon.http.get("/system/function/greeter").expect(404);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn lines_that_a_function_writes_appear_while_it_is_looked_at() {
    needs_root!();
    linux_only!("drives a browser on this machine");
    needs_browser!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    daemon.deploy(json!({"service": "writer"}));
    let browser = open(&daemon);
    browser.click("#rows button");
    for (sent, line) in [("first%20%3Ci%3Eline%3C%2Fi%3E", "out first <i>line</i>"), ("second", "err second")] {
        daemon.call(&format!("writer/log?text={sent}")).expect(200);
        browser.shows("#logs", line);
    }
    browser.picture("page-logs");
}

#[test]
fn a_refusal_is_shown_in_the_provider_s_own_words() {
    needs_root!();
    linux_only!("drives a browser on this machine");
    needs_browser!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    let browser = open(&daemon);
    browser.click("#deploy-new");
    browser.fill("[name=image]", "127.0.0.1:1/nobody/nothing:1");
    browser.fill("[name=service]", "wrong");
    browser.click("#deploy button[value=go]");
    browser.shows("#deploy .fault", "127.0.0.1:1");
    browser.fill("[name=labels]", "no value");
    browser.click("#deploy button[value=go]");
    browser.shows("#deploy .fault", "name=value");
    browser.picture("page-refusal");
}

#[test]
fn the_page_asks_for_the_password_and_loads_nothing_from_elsewhere() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").without_images().start();
    let mut stranger = daemon.gateway.clone();
    stranger.credentials = None;
    for path in ["/ui/", "/ui/ui.js", "/ui/ui.css", "/ui"] {
        stranger.get(path).expect(401);
    }
    assert_eq!(daemon.gateway.get("/ui").expect(301).header("location"), Some("ui/"));
    let page = daemon.gateway.get("/ui/").expect(200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    for path in ["/ui/", "/ui/ui.js", "/ui/ui.css"] {
        let text = daemon.gateway.get(path).expect(200).text();
        assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another place");
    }
}

/// A browser sends a password that was typed here along with requests of any page: such pages are refused.
#[test]
fn pages_of_other_sites_cannot_use_the_password() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").without_images().start();
    let from = |site| daemon.gateway.request("GET", "/system/functions").header("Sec-Fetch-Site", site).send().status;
    assert_eq!([from("cross-site"), from("same-origin"), from("none")], [403, 200, 200]);
}
