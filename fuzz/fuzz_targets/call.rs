//! Calls of the Sky Island API: what is accepted reads the same again, and a program made of it is plain ASCII with
//! the lines that every program has.
#![no_main]

use faas_jails::island::call::Call;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(call) = Call::parse(text) else { return };
    let canonical = call.to_string();
    assert_eq!(Call::parse(&canonical).expect("a canonical call is a call"), call);
    let program = call.program("example.test/package");
    assert_eq!(program.lines().count(), 12);
    let arguments = canonical.split_once('(').expect("a call has a parenthesis").1;
    assert!(arguments.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
});
