use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Call::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[track_caller]
fn refused(text: &str, column: usize, word: &str) {
    let error = Call::parse(text).expect_err(text);
    assert!(error.message.contains(word), "{text}: {error}");
    assert_eq!(error.column, column, "{text}: {error}");
}

#[test]
fn calls_that_clients_of_sky_island_send_are_read() {
    for (text, read) in [
        ("Encode(100.1, 80.9)", "Encode(100.1, 80.9)"),
        ("Hello()", "Hello()"),
        (" geohash . Encode (\n\t1,\n\t-2.5 ,\r\n) \n", "geohash.Encode(1, -2.5)"),
        ("F(`it's \"raw\"\r\n\\n`, \"\\\"q\\\"\")", r#"F("it's \"raw\"\n\\n", "\"q\"")"#),
        (r"F('\'', '\x41', '\377', 'é', '\U0001F600', -'a')", r"F('\'', 'A', '\u00ff', '\u00e9', '\U0001f600', -'a')"),
        (r#"F("\xff\303\251é", true, false, nil)"#, r#"F("\xff\u00e9\u00e9", true, false, nil)"#),
        ("Été(1)", "Été(1)"),
    ] {
        assert_eq!(canonical(text), read, "{text}");
    }
}

#[test]
fn numbers_are_go_s() {
    for (text, read) in [
        ("0", "0"),
        ("00", "0o0"),
        ("42", "42"),
        ("4_2", "42"),
        ("0600", "0o600"),
        ("0_600", "0o600"),
        ("0O17", "0o17"),
        ("0xBad_Face", "0xbadface"),
        ("0x_67", "0x67"),
        ("0B11", "0b11"),
        ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ("0.", "0."),
        ("72.40", "72.40"),
        ("072.40", "072.40"),
        ("1.e+0", "1.e+0"),
        ("6.67428E-11", "6.67428e-11"),
        (".25", ".25"),
        ("1_5.", "15."),
        ("0.15e+0_2", "0.15e+02"),
        ("09.5", "09.5"),
        ("0x1P-2", "0x1p-2"),
        ("0x.8p-0", "0x.8p-0"),
        ("0X_1FFFP-16", "0x1fffp-16"),
        ("0i", "0i"),
        ("0123i", "0123i"),
        ("09i", "09i"),
        ("0o123i", "0o123i"),
        ("2.71828i", "2.71828i"),
        ("1E6i", "1e6i"),
        ("0x1p-2i", "0x1p-2i"),
    ] {
        assert_eq!(canonical(&format!("F({text})")), format!("F({read})"), "{text}");
    }
    // The spec's own examples of what is wrong, and some more.
    for text in [
        "4__2",
        "42_",
        "0_xBadFace",
        "_42",
        "0x.p1",
        "1p-2",
        "0x1.5e-2",
        "1_.5",
        "1._5",
        "1.5_e1",
        "1.5e_1",
        "1.5e1_",
        "08",
        "0b12",
        "0o8",
        "0x",
        "0b",
        "1e",
        "1e+",
        "0x1.8",
        "1.2.3",
        "1x",
        "0x1g",
        "1ii",
        ".",
        "0b1.0",
        "0o7e1",
    ] {
        assert!(Call::parse(&format!("F({text})")).is_err(), "{text}");
    }
}

#[test]
fn what_is_no_call_is_refused_where_it_stops_being_one() {
    refused("", 1, "function's name");
    refused("Encode", 7, "( must follow");
    refused("Encode(1", 9, ", or )");
    refused("encode(1)", 1, "not exported");
    refused("geohash.encode(1)", 9, "not exported");
    refused("a.B.C(1)", 4, "( must follow");
    refused("F(1 + 2)", 5, ", or )");
    refused("F(x)", 3, "x is no literal");
    refused("F(os.Args)", 3, "os is no literal");
    refused("F(G(1))", 3, "G is no literal");
    refused("F([]int{1})", 3, "argument is");
    refused("F(1 /* c */)", 5, ", or )");
    refused("F(--1)", 4, "number must follow");
    refused("F(-\"a\")", 4, "number must follow");
    refused("F(1)(2)", 5, "ends with its )");
    refused("F(1);", 5, "ends with its )");
    refused("F(,)", 3, "argument is");
    refused("F(1,,)", 5, "argument is");
    refused("F(1\n)", 4, ", or )");
    refused("F\n(1)", 2, "( must follow");
    refused("func(1)", 1, "cannot be the name");
    refused("_.F(1)", 1, "cannot be the name");
    refused("nil.F(1)", 1, "cannot be the name");
    refused("é.F(\"x", 5, "no end");
    refused("F(\"a\nb\")", 3, "no end");
    refused("F(`a", 3, "no end");
    refused("F('')", 3, "needs a character");
    refused("F('ab')", 3, "one character");
    refused(r"F('\400')", 4, "\\377");
    refused(r"F('\ud800')", 4, "no Unicode character");
    refused(r"F('\U00110000')", 4, "no Unicode character");
    refused(r#"F('\"')"#, 4, "no escape");
    refused(r#"F("\'")"#, 4, "no escape");
    refused(r#"F("\x4")"#, 4, "2 digits");
    refused("F(\"\0\")", 4, "NUL");
    refused("F(`\u{feff}`)", 4, "byte order mark");
    refused(&format!("F(\"{}\")", "a".repeat(CALL_MAX)), 1, "at most");
}

/// The first of Sky Island's defects: text of the caller became source.
#[test]
fn nothing_of_a_hostile_call_becomes_source() {
    for text in [
        "Encode(1)) } ; func init() { panic(1)",
        "Encode(1); os.Exit(1)",
        "Encode(1)\n}\nimport \"os/exec\"\nfunc init() {",
        "Encode(func() int { return 1 }())",
        "Encode(1) //",
        "Encode(`\n",
        "Encode(1)\u{2028}}",
    ] {
        assert!(Call::parse(text).is_err(), "{text:?}");
    }
    let call = Call::parse("Encode(`\"); panic(1) //\n`)").unwrap();
    let program = call.program("example.test/a\"b");
    assert!(program.contains(r#"function "example.test/a\"b""#), "{program}");
    assert!(program.contains(r#"fmt.Print(function.Encode("\"); panic(1) //\n"))"#), "{program}");
}

#[test]
fn a_package_of_any_name_can_be_called() {
    let program = |call: &str| Call::parse(call).unwrap().program("example.test/fmt");
    assert!(program("F()").contains("\tfunction \"example.test/fmt\"\n"));
    assert!(program("geohash.F()").contains("\tfmt.Print(geohash.F())\n"));
    let shadowed = program("fmt.F()");
    assert!(shadowed.contains("\toutput \"fmt\"\n\n\tfmt \"example.test/fmt\"\n"), "{shadowed}");
    assert!(shadowed.contains("\toutput.Print(fmt.F())\n"), "{shadowed}");
}

fn argument() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("a number", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
        any::<u64>().prop_map(|n| format!("{n:#x}")),
        any::<char>().prop_map(quote_rune),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| quote(&bytes)),
        "[^`\0\u{feff}]{0,20}".prop_map(|text| format!("`{text}`")),
        prop_oneof![Just("true"), Just("false"), Just("nil")].prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = Call::parse(&text);
    }

    #[test]
    fn text_made_of_tokens_is_read_or_refused_and_what_is_read_is_stable(
        tokens in proptest::collection::vec(prop_oneof![
            Just("F"), Just("("), Just(")"), Just(","), Just("-"), Just("."), Just("'a'"), Just("\"a\""), Just("`b`"),
            Just("0x"), Just("1"), Just("e"), Just("_"), Just("i"), Just("\\"), Just("\n"), Just(" "), Just("é"),
        ], 0..12)
    ) {
        if let Ok(call) = Call::parse(&tokens.concat()) {
            let again = Call::parse(&call.to_string()).expect("a canonical call is a call");
            prop_assert_eq!(again, call);
        }
    }

    #[test]
    fn values_survive_writing(arguments in proptest::collection::vec(argument(), 0..6)) {
        let text = format!("F({})", arguments.join(", "));
        let call = Call::parse(&text).unwrap();
        prop_assert_eq!(call.arguments().len(), arguments.len());
        let written = call.to_string();
        prop_assert!(written.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", written);
        prop_assert_eq!(Call::parse(&written).unwrap(), call);
    }

    #[test]
    fn a_quoted_string_holds_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let text = format!("F({})", quote(&bytes));
        let call = Call::parse(&text).unwrap();
        prop_assert_eq!(call.arguments(), &[Argument::Text(bytes)]);
    }
}
