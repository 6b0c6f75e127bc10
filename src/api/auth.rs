//! Basic authentication, one layer over /system.

use std::path::Path;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::Shared;
use crate::fault::{Context, Fault, Result};

/// The one user who may call /system.
#[derive(Debug)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// Reads `basic-auth-user` and `basic-auth-password` in `dir`, without white space around them.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            let text = std::fs::read_to_string(&path)
                .context(|| format!("basic_auth is on, and {} cannot be read", path.display()))?;
            match text.trim() {
                "" => Err(Fault::invalid(format!("basic_auth is on, and {} is empty", path.display()))),
                text => Ok(text.to_owned()),
            }
        };
        Ok(Self { user: read("basic-auth-user")?, password: read("basic-auth-password")? })
    }

    /// An Authorization header that holds them.
    pub fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }

    /// Whether an Authorization header holds them. Takes the same time wherever they differ.
    fn accepts(&self, header: &[u8]) -> bool {
        let basic = header.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
        let Some(Ok(decoded)) = basic.then(|| STANDARD.decode(header[6..].trim_ascii())) else { return false };
        let Some(colon) = decoded.iter().position(|b| *b == b':') else { return false };
        let user = decoded[..colon].ct_eq(self.user.as_bytes());
        let password = decoded[colon + 1..].ct_eq(self.password.as_bytes());
        (user & password).into()
    }
}

/// Set by browsers: whether the page that makes the request is of this server (Fetch Metadata Request Headers, W3C).
const FETCH_SITE: &str = "sec-fetch-site";

/// Lets a request through, or answers 401; 403 to a page of another site, which a browser would give the password that
/// its user has typed here. Without a password the answer is the same: any page could otherwise deploy on a
/// developer's machine.
pub(super) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> std::result::Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if request.headers().get(FETCH_SITE).is_some_and(|site| site == "cross-site") {
        let answer = HttpResponse::Forbidden().body("this is not for pages of other sites");
        return Ok(request.into_response(answer));
    }
    let shared = request.app_data::<web::Data<Shared>>().expect("set for the whole app");
    let allowed = shared.credentials.as_ref().is_none_or(|credentials| {
        request.headers().get(AUTHORIZATION).is_some_and(|header| credentials.accepts(header.as_bytes()))
    });
    if allowed {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let answer = HttpResponse::Unauthorized()
        .insert_header((WWW_AUTHENTICATE, r#"Basic realm="Restricted""#))
        .content_type("text/plain; charset=utf-8")
        .body("invalid credentials");
    Ok(request.into_response(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_pair_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Credentials::read(dir.path()).is_err());
        std::fs::write(dir.path().join("basic-auth-user"), "admin\n").unwrap();
        std::fs::write(dir.path().join("basic-auth-password"), " se:cret \n").unwrap();
        let credentials = Credentials::read(dir.path()).unwrap();
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text)).into_bytes();
        assert!(credentials.accepts(&header("admin:se:cret")));
        assert!(credentials.accepts(credentials.header().as_bytes()));
        assert!(credentials.accepts(&[b"basic ", STANDARD.encode("admin:se:cret").as_bytes()].concat()));
        for wrong in ["admin:", "admin", ":se:cret", "admin:se:cre", "Admin:se:cret", "admin:se:cret "] {
            assert!(!credentials.accepts(&header(wrong)), "{wrong}");
        }
        for wrong in [&b""[..], b"Basic", b"Basic !!!", b"Bearer YWRtaW46c2U6Y3JldA=="] {
            assert!(!credentials.accepts(wrong));
        }
    }
}
