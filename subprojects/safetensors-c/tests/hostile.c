/* SPDX-License-Identifier: MIT */
/* Headers that must be refused, each with its own code and words, and their accepted cousins. */
#define SAFETENSORS_IMPLEMENTATION
#include "check.h"

typedef struct row {
    const char *json;
    size_t n;
    uint64_t data; /* bytes after the header */
    int code;
    const char *text; /* must be part of the message */
} row;

#define J(s) s, sizeof s - 1
#define T(body) J("{\"t\":{" body "}}")
#define U8(shape, b, e) "\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" b "," e "]"
#define E(name, b, e) "\"" name "\":{" U8("[" e "]", b, e) "}"

static const row rows[] = {
    /* not an object */
    {J(""), 0, ST_ESYNTAX, "expected '{', found the end"},
    {J("   "), 0, ST_ESYNTAX, "found the end"},
    {J("{"), 0, ST_ESYNTAX, "expected a tensor name, found the end"},
    {J("}"), 0, ST_ESYNTAX, "expected '{', found '}'"},
    {J("[]"), 0, ST_ESCHEMA, "found an array"},
    {J("null"), 0, ST_ESCHEMA, "found null"},
    {J("1"), 0, ST_ESCHEMA, "found a number"},
    {J("\"a\""), 0, ST_ESCHEMA, "found a string"},
    {J("true"), 0, ST_ESCHEMA, "found a boolean"},
    {J("\xef\xbb\xbf{}"), 0, ST_ESYNTAX, "found '\\xEF'"},
    {J("{}{}"), 0, ST_ESYNTAX, "more than one JSON value"},
    {J("{}x"), 0, ST_ESYNTAX, "more than one JSON value, at byte 2"},
    {J("{}\0"), 0, ST_ESYNTAX, "more than one JSON value"},
    {J("{}\v"), 0, ST_ESYNTAX, "more than one JSON value"},
    {J("\0{}"), 0, ST_ESYNTAX, "found '\\x00'"},
    {J("// c\n{}"), 0, ST_ESYNTAX, "found '/'"},
    {J("{,}"), 0, ST_ESYNTAX, "expected a tensor name, found ','"},
    {J("{a:1}"), 0, ST_ESYNTAX, "expected a tensor name, found 'a'"},
    {J("{'a':1}"), 0, ST_ESYNTAX, "found '''"},
    {J("{1:1}"), 0, ST_ESCHEMA, "expected a tensor name, found a number"},
    {J("{\"t\"}"), 0, ST_ESYNTAX, "expected ':'"},
    {J("{\"t\":}"), 0, ST_ESYNTAX, "tensor \"t\": expected an object, found '}'"},
    {J("{\"t\":1}"), 0, ST_ESCHEMA, "tensor \"t\": expected an object, found a number"},
    {J("{\"t\":null}"), 0, ST_ESCHEMA, "found null"},
    {J("{\"t\":[\"U8\",[0],[0,0]]}"), 0, ST_ESCHEMA, "expected an object, found an array"},
    {J("{" E("t", "0", "0") ",}"), 0, ST_ESYNTAX, "expected a tensor name, found '}'"},
    {J("{" E("t", "0", "0") " " E("u", "0", "0") "}"), 0, ST_ESYNTAX, "expected ',' or '}'"},
    {J("{" E("t", "0", "0") "]"), 0, ST_ESYNTAX, "expected ',' or '}', found ']'"},
    {J("{" E("t", "0", "0")), 0, ST_ESYNTAX, "found the end"},
    /* fields */
    {T(""), 0, ST_ESCHEMA, "tensor \"t\": dtype is missing"},
    {T("\"dtype\":\"U8\",\"data_offsets\":[0,0]"), 0, ST_ESCHEMA, "shape is missing"},
    {T("\"dtype\":\"U8\",\"shape\":[0]"), 0, ST_ESCHEMA, "data_offsets is missing"},
    {T("\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_ESCHEMA, "dtype is missing"},
    {T(U8("[0]", "0", "0") ",\"x\":1"), 0, ST_ESCHEMA, "unknown key \"x\""},
    {T(U8("[0]", "0", "0") ",\"Shape\":[0]"), 0, ST_ESCHEMA, "unknown key \"Shape\""},
    {T(U8("[0]", "0", "0") ",\"\":0"), 0, ST_ESCHEMA, "unknown key \"\""},
    {T(U8("[0]", "0", "0") ",\"data_offsets_and_more\":0"), 0, ST_ESCHEMA, "unknown key"},
    {T(U8("[0]", "0", "0") ","), 0, ST_ESYNTAX, "expected a key, found '}'"},
    {T("\"dtype\":8"), 0, ST_ESCHEMA, "expected a string as dtype, found a number"},
    {T("\"dtype\":null"), 0, ST_ESCHEMA, "expected a string as dtype, found null"},
    {T("\"shape\":3"), 0, ST_ESCHEMA, "expected an array of integers, found a number"},
    {T("\"shape\":{}"), 0, ST_ESCHEMA, "expected an array of integers, found an object"},
    {T("\"shape\":\"[3]\""), 0, ST_ESCHEMA, "found a string"},
    {T("\"shape\":[\"3\"]"), 0, ST_ESCHEMA, "expected an integer from 0 to 2^64-1, found a str"},
    {T("\"shape\":[[3]]"), 0, ST_ESCHEMA, "found an array"},
    {T("\"shape\":[3,]"), 0, ST_ESYNTAX, "found ']'"},
    {T("\"shape\":[,3]"), 0, ST_ESYNTAX, "found ','"},
    {T("\"shape\":[3 3]"), 0, ST_ESYNTAX, "expected ',' or ']', found '3'"},
    {T("\"shape\":[3"), 0, ST_ESYNTAX, "expected ',' or ']', found '}'"},
    {T("\"data_offsets\":[]"), 0, ST_ESCHEMA, "data_offsets has 0 values, not 2"},
    {T("\"data_offsets\":[0]"), 0, ST_ESCHEMA, "data_offsets has 1 values, not 2"},
    {T("\"data_offsets\":[0,0,0]"), 0, ST_ESHAPE, "data_offsets has more than 2 values"},
    {T("\"data_offsets\":{\"0\":0}"), 0, ST_ESCHEMA, "found an object"},
    /* dtypes */
    {T("\"dtype\":\"F31\",\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_EDTYPE,
     "tensor \"t\": unknown dtype \"F31\""},
    {T("\"dtype\":\"u8\",\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_EDTYPE, "\"u8\""},
    {T("\"dtype\":\"\",\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_EDTYPE, "dtype \"\""},
    {T("\"dtype\":\"U8 \",\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_EDTYPE, "\"U8 \""},
    {T("\"dtype\":\"float32_and_many_more\",\"shape\":[0],\"data_offsets\":[0,0]"), 0, ST_EDTYPE,
     "\"float32_and_many_more\""},
    {T("\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]"), 1, ST_EDTYPE, "sub-byte dtype F4"},
    {T("\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]"), 3, ST_EDTYPE, "F6_E2M3"},
    {T("\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]"), 3, ST_EDTYPE, "F6_E3M2"},
    /* shapes */
    {T(U8("[1,1,1,1,1,1,1,1,1]", "0", "1")), 1, ST_ESHAPE, "shape has more than 8 values"},
    {T(U8("[2]", "0", "1")), 1, ST_ESHAPE, "U8 [2] takes 2 bytes, but data_offsets give 1"},
    {T(U8("[2]", "0", "3")), 3, ST_ESHAPE, "takes 2 bytes, but data_offsets give 3"},
    {T(U8("[]", "0", "0")), 0, ST_ESHAPE, "U8 [] takes 1 bytes"},
    {T(U8("[0]", "0", "1")), 1, ST_ESHAPE, "takes 0 bytes"},
    {T("\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,1]"), 1, ST_ESHAPE, "takes 2 bytes"},
    {T("\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, ST_ESHAPE, "takes 8 bytes"},
    {T(U8("[4611686018427387904,4611686018427387904]", "0", "0")), 0, ST_ESHAPE, "overflows"},
    {T(U8("[4611686018427387904,4]", "0", "0")), 0, ST_ESHAPE, "overflows 64 bits"},
    {T(U8("[0,4611686018427387904,4611686018427387904]", "0", "0")), 0, ST_ESHAPE, "overflows"},
    {T(U8("[4611686018427387904,0,4611686018427387904]", "0", "0")), 0, ST_ESHAPE, "overflows"},
    {T(U8("[4611686018427387904,4611686018427387904,0]", "0", "0")), 0, ST_ESHAPE, "overflows"},
    {T(U8("[18446744073709551615,2]", "0", "0")), 0, ST_ESHAPE, "overflows"},
    {T(U8("[18446744073709551615]", "0", "18446744073709551615")), 0, ST_ELIMIT, "elements"},
    {T(U8("[281474976710657]", "0", "281474976710657")), 0, ST_ELIMIT, "281474976710656"},
    {T(U8("[0,281474976710657]", "0", "0")), 0, ST_ELIMIT, "more than"},
    {T("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"), 0, ST_ELIMIT,
     "more than"},
    {T("\"dtype\":\"F32\",\"shape\":[2,18446744073709551614],\"data_offsets\":[0,16]"), 16,
     ST_ESHAPE, "overflows"},
    /* offsets */
    {T(U8("[1]", "1", "0")), 1, ST_EOFFSET, "ends at byte 0, before its begin at 1"},
    {T(U8("[1]", "1", "2")), 2, ST_EOFFSET, "tensor \"t\": begins at byte 1, leaving a hole"},
    {T(U8("[8]", "0", "8")), 7, ST_ETRUNCATED, "tensor \"t\": ends at byte 8 of the data"},
    {T(U8("[8]", "0", "8")), 0, ST_ETRUNCATED, "the file at 0"},
    {T(U8("[8]", "0", "8")), 9, ST_ETRAILING, "1 bytes follow the last tensor \"t\""},
    {T(U8("[0]", "9223372036854775808", "9223372036854775808")), 0, ST_EOFFSET, "hole"},
    {T(U8("[1]", "18446744073709551614", "18446744073709551615")), 0, ST_EOFFSET, "hole"},
    {T(U8("[281474976710656]", "0", "281474976710656")), 99, ST_ETRUNCATED, "the file at 99"},
    {J("{}"), 1, ST_ETRAILING, "1 bytes follow the last tensor"},
    {J("{\"a\":{" U8("[4]", "0", "4") "},\"b\":{" U8("[4]", "2", "6") "}}"), 6, ST_EOFFSET,
     "tensor \"b\": begins at byte 2, inside one that ends at 4"},
    {J("{\"a\":{" U8("[4]", "0", "4") "},\"b\":{" U8("[4]", "0", "4") "}}"), 4, ST_EOFFSET,
     "tensor \"b\": begins at byte 0"},
    {J("{\"b\":{" U8("[1]", "5", "6") "},\"a\":{" U8("[4]", "0", "4") "}}"), 6, ST_EOFFSET,
     "tensor \"b\": begins at byte 5, leaving a hole after 4"},
    {J("{\"a\":{" U8("[4]", "0", "4") "},\"b\":{" U8("[0]", "2", "2") "}}"), 4, ST_EOFFSET,
     "tensor \"b\": begins at byte 2, inside"},
    /* keys twice */
    {J("{" E("a", "0", "0") "," E("a", "0", "0") "}"), 0, ST_EDUPLICATE,
     "tensor \"a\": the name appears twice"},
    {J("{" E("a", "0", "0") "," E("b", "0", "0") "," E("\\u0061", "0", "0") "}"), 0,
     ST_EDUPLICATE, "tensor \"a\""},
    {J("{" E("\\ud83d\\ude00", "0", "0") "," E("\xf0\x9f\x98\x80", "0", "0") "}"), 0,
     ST_EDUPLICATE, "\\xF0\\x9F\\x98\\x80"},
    {J("{" E("/", "0", "0") "," E("\\/", "0", "0") "}"), 0, ST_EDUPLICATE, "tensor \"/\""},
    {J("{" E("", "0", "0") "," E("", "0", "0") "}"), 0, ST_EDUPLICATE, "tensor \"\""},
    {J("{" E("a", "0", "1") ",\"a\":{" U8("[1]", "1", "2") "}}"), 2, ST_EDUPLICATE, "\"a\""},
    {T(U8("[0]", "0", "0") ",\"shape\":[0]"), 0, ST_EDUPLICATE, "shape appears twice"},
    {T(U8("[0]", "0", "0") ",\"dtyp\\u0065\":\"U8\""), 0, ST_EDUPLICATE, "dtype appears twice"},
    {T(U8("[0]", "0", "0") ",\"data\\u005foffsets\":[0,0]"), 0, ST_EDUPLICATE, "data_offsets"},
    {J("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, ST_EDUPLICATE, "__metadata__ appears"},
    {J("{\"__metadata__\":{},\"\\u005f_metadata__\":{}}"), 0, ST_EDUPLICATE, "__metadata__"},
    {J("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}"), 0, ST_EDUPLICATE, "metadata key \"k\""},
    {J("{\"__metadata__\":{\"k\":\"1\",\"j\":\"\",\"\\u006b\":\"2\"}}"), 0, ST_EDUPLICATE,
     "metadata key \"k\": the key appears twice"},
    /* metadata */
    {J("{\"__metadata__\":null}"), 0, ST_ESCHEMA, "expected an object of strings"},
    {J("{\"__metadata__\":\"x\"}"), 0, ST_ESCHEMA, "found a string"},
    {J("{\"__metadata__\":[]}"), 0, ST_ESCHEMA, "found an array"},
    {J("{\"__metadata__\":{\"k\":1}}"), 0, ST_ESCHEMA,
     "metadata key \"k\": expected a string as value, found a number"},
    {J("{\"__metadata__\":{\"k\":null}}"), 0, ST_ESCHEMA, "found null"},
    {J("{\"__metadata__\":{\"k\":{}}}"), 0, ST_ESCHEMA, "found an object"},
    {J("{\"__metadata__\":{\"k\":false}}"), 0, ST_ESCHEMA, "found a boolean"},
    {J("{\"__metadata__\":{\"k\"}}"), 0, ST_ESYNTAX, "expected ':'"},
    {J("{\"__metadata__\":{\"k\":\"v\",}}"), 0, ST_ESYNTAX, "expected a metadata key"},
    {J("{\"__metadata__\":{\"k\":\"v\"]}"), 0, ST_ESYNTAX, "in __metadata__"},
    {J("{\"__metadata__\":{\"k\":\"v\""), 0, ST_ESYNTAX, "found the end"},
    /* strings */
    {J("{\"t"), 0, ST_ESYNTAX, "a string is not closed"},
    {J("{\"t\\"), 0, ST_ESYNTAX, "unknown escape"},
    {J("{\"\\a\":0}"), 0, ST_ESYNTAX, "unknown escape at byte 3"},
    {J("{\"\\'\":0}"), 0, ST_ESYNTAX, "unknown escape"},
    {J("{\"\\x41\":0}"), 0, ST_ESYNTAX, "unknown escape"},
    {J("{\"\\U0041\":0}"), 0, ST_ESYNTAX, "unknown escape"},
    {J("{\"\\\0\":0}"), 0, ST_ESYNTAX, "unknown escape"},
    {J("{\"\\u\":0}"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"\\u12\":0}"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"\\u12g4\":0}"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"\\u+123\":0}"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"\\u123"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"\\u0000\":0}"), 0, ST_ESYNTAX, "NUL is refused"},
    {J("{\"a\0b\":0}"), 0, ST_ESYNTAX, "raw control character \\x00"},
    {J("{\"a\nb\":0}"), 0, ST_ESYNTAX, "raw control character \\x0A"},
    {J("{\"a\x1f\":0}"), 0, ST_ESYNTAX, "raw control character \\x1F in a string at byte 3"},
    {J("{\"\\ud800\":0}"), 0, ST_ESYNTAX, "lone surrogate \\ud800"},
    {J("{\"\\udc00\":0}"), 0, ST_ESYNTAX, "lone surrogate \\udc00"},
    {J("{\"\\udfff\":0}"), 0, ST_ESYNTAX, "lone surrogate \\udfff"},
    {J("{\"\\ud800x\":0}"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud800\\n12345\":0}"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud800\\ud800\":0}"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud800\\u0041\":0}"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud800\\ue000\":0}"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud800\\udbff\":0}"), 0, ST_ESYNTAX, "lone surrogate \\ud800"},
    {J("{\"\\udc00\\udc00\":0}"), 0, ST_ESYNTAX, "lone surrogate \\udc00"},
    {J("{\"\\udbff\\u"), 0, ST_ESYNTAX, "lone surrogate"},
    {J("{\"\\ud83d\\ude0\":0}"), 0, ST_ESYNTAX, "\\u needs four hex digits"},
    {J("{\"__metadata__\":{\"k\":\"\\u0000\"}}"), 0, ST_ESYNTAX, "metadata key \"k\": \\u0000"},
};

/* Parses a copy that ends with its block; checks that a failure leaves nothing behind. */
static int parse(const void *json, size_t n, uint64_t data, const st_limits *limits, st_doc *doc,
                 st_error *err)
{
    check_heap heap = {0};
    st_alloc hooks = check_hooks(&heap);
    void *copy = check_copy(json, n);
    int rc;
    memset(doc, 0xa5, sizeof *doc);
    memset(err, 0, sizeof *err);
    rc = st_parse(doc, copy, n, 8 + n + data, limits, &hooks, err);
    free(copy);
    CHECK(heap.calls <= 1, "%ld allocations", heap.calls);
    if (rc < 0) {
        CHECK(check_zeroed(doc, sizeof *doc), "failure left something in doc");
        CHECK(heap.alive == 0, "leak");
        CHECK(err->code == rc && err->text[0], "no text for %d", rc);
    } else {
        /* the heap ends with this frame: prove the hooks work, then parse for the caller */
        st_free(doc);
        CHECK(heap.alive == 0, "leak");
        rc = st_parse(doc, json, n, 8 + n + data, limits, NULL, err);
    }
    return rc;
}

static void test_rows(void)
{
    st_doc doc;
    st_error err;
    size_t i;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        int rc = parse(rows[i].json, rows[i].n, rows[i].data, NULL, &doc, &err);
        CHECK(rc == rows[i].code, "%s -> %d %s, wanted %d", rows[i].json, rc, err.text,
              rows[i].code);
        CHECK(strstr(err.text, rows[i].text), "%s -> %s", rows[i].json, err.text);
        st_free(&doc);
        CHECK(st_parse(&doc, rows[i].json, rows[i].n, 8 + rows[i].n + rows[i].data, NULL, NULL,
                       NULL) == rc, "another code without an error to fill");
    }
    printf("%d hostile rows\n", (int)(sizeof rows / sizeof *rows));
}

static const row good[] = {
    {J("{}"), 0, 0, ""},
    {J(" \t\r\n{ } \n\t\r "), 0, 0, ""},
    {J("{}       "), 0, 0, ""},
    {J("{\"__metadata__\":{}}"), 0, 0, ""},
    {J("{ \"__metadata__\" : { \"k\" : \"v\" , \"\" : \"\" } }"), 0, 0, ""},
    {J("{" E("t", "0", "0") "}"), 0, 0, ""},
    {J("{" E("", "0", "0") "}"), 0, 0, ""},
    {J("{" E("../../etc/passwd", "0", "0") "}"), 0, 0, ""},
    {J("{\"t\" : { \"data_offsets\" : [ 0 , 6 ] , \"shape\" : [ 2 , 3 ] , \"dtype\" : \"I8\" } }"),
     6, 0, ""},
    {T(U8("[]", "0", "1")), 1, 0, ""},
    {T(U8("[1,1,1,1,1,1,1,1]", "0", "1")), 1, 0, ""},
    {T(U8("[281474976710656]", "0", "281474976710656")), UINT64_C(281474976710656), 0, ""},
    {T(U8("[0,281474976710656]", "0", "0")), 0, 0, ""},
    {T("\"dtype\":\"\\u0055\\u0038\",\"sh\\u0061pe\":[1],\"data_offsets\":[0,1]"), 1, 0, ""},
    {J("{\"b\":{" U8("[1]", "1", "2") "},\"z\":{" U8("[0]", "1", "1") "},\"a\":{"
       U8("[1]", "0", "1") "}}"), 2, 0, ""},
    {J("{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u4E2D\\ud83D\\uDE00\\uFFFF\":{"
       U8("[0]", "0", "0") "}}"), 0, 0, ""},
};

static void test_good(void)
{
    st_doc doc;
    st_error err;
    size_t i;
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        int rc = parse(good[i].json, good[i].n, good[i].data, NULL, &doc, &err);
        CHECK(rc == good[i].code, "%s -> %d %s", good[i].json, rc, err.text);
        st_free(&doc);
    }
}

static void test_values(void)
{
    static const char json[] =
        "{\"z\\u0041\\n\\ud83d\\ude00\":{"
        "\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"__metadata__\":{\"b\":\"2\",\"a\":\"\\\"x\\/\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"e\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[4,4]}}";
    st_doc doc;
    st_error err;
    const st_tensor *t;
    int rc = parse(json, sizeof json - 1, 12 + 4, NULL, &doc, &err);
    CHECK(rc == ST_OK, "%s", err.text);
    CHECK(doc.n_tensors == 3 && doc.n_metadata == 2 && doc.has_metadata, "counts");
    CHECK(doc.data_offset == 8 + sizeof json - 1 && doc.data_size == 16 && !doc.trailing, "sizes");
    CHECK(!strcmp(doc.tensors[0].name, "a") && !strcmp(doc.tensors[1].name, "e"), "order");
    t = st_find(&doc, "zA\n\xf0\x9f\x98\x80");
    CHECK(t == &doc.tensors[2], "lookup");
    if (t) {
        CHECK(t->name_len == 7 && t->dtype == ST_F16 && t->rank == 2, "%u", t->name_len);
        CHECK(t->shape[0] == 2 && t->shape[1] == 3 && t->size == 12, "shape");
        CHECK(t->offset == doc.data_offset + 4 && !strcmp(t->dtype_name, "F16"), "offset");
    }
    CHECK(doc.tensors[0].rank == 0 && doc.tensors[0].shape, "a scalar's shape");
    CHECK(!st_find(&doc, "zz") && !st_find(&doc, "") && !st_find(&doc, NULL), "absent");
    CHECK(!st_find(NULL, "a") && !st_metadata(NULL, "a"), "no document");
    CHECK(!strcmp(doc.metadata[0].key, "b") && doc.metadata[1].value_len == 3, "file order");
    CHECK(!strcmp(st_metadata(&doc, "a"), "\"x/") && !strcmp(st_metadata(&doc, "b"), "2"), "get");
    CHECK(!st_metadata(&doc, "c") && !st_metadata(&doc, "__metadata__"), "absent");
    st_free(&doc);
    st_free(&doc);
    st_free(NULL);
    rc = parse("{}", 2, 0, NULL, &doc, &err);
    CHECK(rc == ST_OK && !doc.has_metadata && !st_find(&doc, "a"), "an empty file");
    st_free(&doc);
}

/* Each text takes the place of an integer, in shape and in data_offsets. */
static void test_numbers(void)
{
    static const struct { const char *text; int ok; } n[] = {
        {"0", 1}, {" 0 ", 1}, {"\n0\t", 1}, {"-0", 0}, {"-1", 0}, {"+0", 0}, {"+1", 0}, {"00", 0},
        {"01", 0}, {"000", 0}, {"0.0", 0}, {"0.", 0}, {".0", 0}, {"0e0", 0}, {"0E0", 0},
        {"0e+0", 0}, {"0e-0", 0}, {"1e3", 0}, {"1e400", 0}, {"1e-400", 0}, {"1.0", 0}, {"1.", 0},
        {"1E0", 0}, {"0x0", 0}, {"0X1", 0}, {"0b0", 0}, {"0o0", 0}, {"0u", 0}, {"0L", 0},
        {"0_0", 0}, {"0 0", 0}, {"0,", 0}, {"NaN", 0}, {"nan", 0}, {"Infinity", 0},
        {"-Infinity", 0}, {"inf", 0}, {"null", 0}, {"true", 0}, {"false", 0}, {"\"0\"", 0},
        {"[0]", 0}, {"{}", 0}, {"", 0}, {" ", 0}, {"/**/0", 0}, {"'0'", 0}, {"\xd9\xa0", 0},
        {"\xef\xbc\x90", 0}, {"0\f", 0}, {"0\v", 0}, {"\xc2\xa0" "0", 0}, {"0\xe2\x80\x8b", 0},
        {"18446744073709551616", 0}, {"18446744073709551620", 0}, {"99999999999999999999", 0},
        {"1234567890123456789012345678901234567890", 0}, {"36893488147419103232", 0},
        {"18446744073709551615", 0}, {"9223372036854775808", 0}, {"1", 0}, {"a", 0}, {"0;", 0},
    };
    size_t i;
    for (i = 0; i < sizeof n / sizeof *n; i++) {
        char json[256];
        st_doc doc;
        st_error err;
        int k, rc;
        for (k = 0; k < 3; k++) {
            snprintf(json, sizeof json,
                     "{\"t\":{\"dtype\":\"U8\",\"shape\":[0,%s],\"data_offsets\":[%s,%s]}}",
                     k == 0 ? n[i].text : "5", k == 1 ? n[i].text : "0",
                     k == 2 ? n[i].text : "0");
            rc = parse(json, strlen(json), 0, NULL, &doc, &err);
            if (!k && !strcmp(n[i].text, "1"))
                CHECK(rc == ST_OK, "%s -> %s", json, err.text);
            else
                CHECK((rc == ST_OK) == n[i].ok, "%s -> %d %s", json, rc, err.text);
            st_free(&doc);
        }
    }
    printf("%d number rows\n", (int)(sizeof n / sizeof *n));
}

/* After Markus Kuhn's UTF-8 decoder stress test. */
static void test_utf8(void)
{
    static const struct { const char *bytes; int ok; } s[] = {
        {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", 1},
        {"\xc2\x80", 1}, {"\xe0\xa0\x80", 1}, {"\xf0\x90\x80\x80", 1}, {"\xf8\x88\x80\x80\x80", 0},
        {"\xfc\x84\x80\x80\x80\x80", 0}, {"\x7f", 1}, {"\xdf\xbf", 1}, {"\xef\xbf\xbf", 1},
        {"\xf7\xbf\xbf\xbf", 0}, {"\xfb\xbf\xbf\xbf\xbf", 0}, {"\xfd\xbf\xbf\xbf\xbf\xbf", 0},
        {"\xed\x9f\xbf", 1}, {"\xee\x80\x80", 1}, {"\xef\xbf\xbd", 1}, {"\xf4\x8f\xbf\xbf", 1},
        {"\xf4\x90\x80\x80", 0}, {"\xf5\x80\x80\x80", 0}, {"\x80", 0}, {"\xbf", 0},
        {"\x80\xbf", 0}, {"\x80\xbf\x80", 0},
        {"\xc0 ", 0}, {"\xc1 ", 0}, {"\xc2 ", 0}, {"\xdf ", 0}, {"\xe0 ", 0}, {"\xef ", 0},
        {"\xf0 ", 0}, {"\xf4 ", 0}, {"\xf8 ", 0}, {"\xfc ", 0}, {"\xc3", 0}, {"\xe0\xa0", 0},
        {"\xf0\x90\x80", 0}, {"\xf8\x88\x80\x80", 0}, {"\xdf", 0}, {"\xef\xbf", 0},
        {"\xf4\x8f\xbf", 0}, {"\xfe", 0}, {"\xff", 0}, {"\xfe\xfe\xff\xff", 0},
        {"\xc0\xaf", 0}, {"\xe0\x80\xaf", 0}, {"\xf0\x80\x80\xaf", 0}, {"\xf8\x80\x80\x80\xaf", 0},
        {"\xc1\xbf", 0}, {"\xe0\x9f\xbf", 0}, {"\xf0\x8f\xbf\xbf", 0}, {"\xc0\x80", 0},
        {"\xe0\x80\x80", 0}, {"\xf0\x80\x80\x80", 0}, {"\xed\xa0\x80", 0}, {"\xed\xad\xbf", 0},
        {"\xed\xae\x80", 0}, {"\xed\xaf\xbf", 0}, {"\xed\xb0\x80", 0}, {"\xed\xbf\xbf", 0},
        {"\xed\xa0\x80\xed\xb0\x80", 0}, {"\xed\xaf\xbf\xed\xbf\xbf", 0}, {"\xef\xbf\xbe", 1},
        {"\xef\xb7\x90", 1}, {"\xf0\x9f\xbf\xbe", 1}, {"\xe1\x80\x41", 0}, {"\xf1\x80\x80\xc0", 0},
        {"\xc3\xc3", 0}, {"\xe2\x28\xa1", 0}, {"\xf0\x28\x8c\xbc", 0}, {"\xf0\x90\x28\xbc", 0},
    };
    static const char *const frames[] = {
        "{\"%s\":{" U8("[0]", "0", "0") "}}", "{\"__metadata__\":{\"%s\":\"\"}}",
        "{\"__metadata__\":{\"k\":\"%s\"}}", "{\"__metadata__\":{\"k\":\"x%sx\"}}",
    };
    size_t i, k;
    for (i = 0; i < sizeof s / sizeof *s; i++)
        for (k = 0; k < sizeof frames / sizeof *frames; k++) {
            char json[256];
            st_doc doc;
            st_error err;
            int rc;
            snprintf(json, sizeof json, frames[k], s[i].bytes);
            rc = parse(json, strlen(json), 0, NULL, &doc, &err);
            CHECK(rc == (s[i].ok ? ST_OK : ST_ESYNTAX), "row %d: %d %s", (int)i, rc, err.text);
            CHECK(s[i].ok || strstr(err.text, "not UTF-8"), "row %d: %s", (int)i, err.text);
            st_free(&doc);
        }
    printf("%d UTF-8 rows\n", (int)(sizeof s / sizeof *s));
}

static void test_length_word(void)
{
    static const struct { uint64_t n, size; int code; } r[] = {
        {0, 0, ST_ETRUNCATED}, {0, 7, ST_ETRUNCATED}, {0, 8, ST_EHEADER}, {0, 100, ST_EHEADER},
        {1, 100, ST_EHEADER}, {2, 100, 0}, {92, 100, 0}, {93, 100, ST_ETRUNCATED},
        {2, 9, ST_ETRUNCATED}, {2, 10, 0}, {100000000, 100000008, 0},
        {100000000, 100000007, ST_ETRUNCATED}, {100000001, UINT64_MAX, ST_EHEADER},
        {UINT64_C(1) << 31, 100, ST_EHEADER}, {UINT64_C(1) << 32, UINT64_MAX, ST_EHEADER},
        {UINT64_C(1) << 53, UINT64_MAX, ST_EHEADER}, {UINT64_C(1) << 62, 10, ST_EHEADER},
        {UINT64_C(1) << 63, 100, ST_EHEADER}, {UINT64_MAX, 100, ST_EHEADER},
        {UINT64_MAX - 7, UINT64_MAX, ST_EHEADER}, {256, 264, 0}, {0x020304, 0x02030c, 0},
    };
    static const struct { const char *bytes, *text; } hints[] = {
        {"version https", "git-lfs"}, {"<!DOCTYPE html>", "HTML"}, {"<!doctype", "HTML"},
        {"<html>\n\n", "HTML"}, {"PK\3\4\x14\0\0\xff", "zip"}, {"GGUF\3\0\0\x01", "GGUF"},
        {"abcdefgh", "not 2 to"},
    };
    st_error err;
    uint64_t n;
    size_t i;
    for (i = 0; i < sizeof r / sizeof *r; i++) {
        unsigned char b[8];
        int k, rc;
        for (k = 0; k < 8; k++)
            b[k] = (unsigned char)(r[i].n >> 8 * k);
        n = 77;
        rc = st_header_length(b, r[i].size, &n, &err);
        CHECK(rc == r[i].code && n == (rc ? 0 : r[i].n), "row %d: %d", (int)i, rc);
    }
    for (i = 0; i < sizeof hints / sizeof *hints; i++) {
        CHECK(st_header_length(hints[i].bytes, 1000, &n, &err) == ST_EHEADER, "%s", err.text);
        CHECK(strstr(err.text, hints[i].text), "%s", err.text);
    }
    CHECK(st_header_length(NULL, 5, &n, &err) == ST_ETRUNCATED, "short file is not read");
    CHECK(st_header_length(NULL, 9, &n, &err) == ST_EINVAL, "NULL");
    CHECK(st_header_length("", 9, NULL, NULL) == ST_EINVAL, "NULL");
}

static void test_limits(void)
{
    static const char two[] = "{\"__metadata__\":{\"k\":\"\"}," E("t", "0", "2") "}";
    static const char odd[] = "{\"x\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]},"
        "\"y\":{\"dtype\":\"INT_QUITE_NEW_TYPE\",\"shape\":[9],\"data_offsets\":[3,4]},"
        "\"z\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5]}}";
    st_alloc half = {check_alloc, NULL, check_free, NULL};
    st_limits l = {0};
    st_doc doc;
    st_error err;
    l.max_header = sizeof two - 2;
    CHECK(parse(two, sizeof two - 1, 2, &l, &doc, &err) == ST_ELIMIT, "%s", err.text);
    l.max_header++;
    CHECK(parse(two, sizeof two - 1, 2, &l, &doc, &err) == ST_OK, "%s", err.text);
    st_free(&doc);
    l.max_entries = 1;
    CHECK(parse(two, sizeof two - 1, 2, &l, &doc, &err) == ST_ELIMIT, "%s", err.text);
    l.max_entries = 2;
    l.max_elements = 1;
    CHECK(parse(two, sizeof two - 1, 2, &l, &doc, &err) == ST_ELIMIT, "%s", err.text);
    l.max_elements = 2;
    l.max_header = UINT64_MAX;
    CHECK(parse(two, sizeof two - 1, 2, &l, &doc, &err) == ST_OK, "%s", err.text);
    st_free(&doc);
    CHECK(st_parse(&doc, two, ST_MAX_HEADER + 1u, UINT64_MAX, &l, NULL, &err) == ST_ELIMIT, "cap");
    l.flags = ST_ALLOW_TRAILING;
    CHECK(parse(two, sizeof two - 1, 9, &l, &doc, &err) == ST_OK && doc.trailing == 7, "%s",
          err.text);
    st_free(&doc);
    CHECK(parse(two, sizeof two - 1, 1, &l, &doc, &err) == ST_ETRUNCATED, "%s", err.text);
    memset(&l, 0, sizeof l);
    CHECK(parse(odd, sizeof odd - 1, 5, &l, &doc, &err) == ST_EDTYPE, "%s", err.text);
    l.flags = ST_ALLOW_OPAQUE;
    CHECK(parse(odd, sizeof odd - 1, 5, &l, &doc, &err) == ST_OK, "%s", err.text);
    CHECK(doc.n_tensors == 3 && doc.tensors[0].dtype == ST_OPAQUE && doc.tensors[0].size == 3,
          "sub-byte");
    CHECK(!strcmp(doc.tensors[0].dtype_name, "F6_E2M3") &&
          !strcmp(doc.tensors[1].dtype_name, "INT_QUITE_NEW_TYPE") &&
          doc.tensors[2].dtype == ST_U8, "names of opaque types");
    st_free(&doc);
    CHECK(st_parse(NULL, "{}", 2, 10, NULL, NULL, &err) == ST_EINVAL, "doc");
    CHECK(st_parse(&doc, NULL, 2, 10, NULL, NULL, &err) == ST_EINVAL, "json");
    CHECK(st_parse(&doc, "{}", 2, 10, NULL, &half, &err) == ST_EINVAL, "hooks");
    CHECK(st_parse(&doc, "{}", 2, 9, NULL, NULL, &err) == ST_ETRUNCATED, "size");
    CHECK(st_parse(&doc, "{}", 2, 7, NULL, NULL, &err) == ST_ETRUNCATED, "size");
}

static void test_dtypes(void)
{
    static const struct { int dtype; const char *name; size_t size; } d[] = {
        {ST_BOOL, "BOOL", 1}, {ST_U8, "U8", 1}, {ST_I8, "I8", 1}, {ST_F8_E5M2, "F8_E5M2", 1},
        {ST_F8_E4M3, "F8_E4M3", 1}, {ST_F8_E8M0, "F8_E8M0", 1},
        {ST_F8_E4M3FNUZ, "F8_E4M3FNUZ", 1}, {ST_F8_E5M2FNUZ, "F8_E5M2FNUZ", 1},
        {ST_I16, "I16", 2}, {ST_U16, "U16", 2}, {ST_F16, "F16", 2}, {ST_BF16, "BF16", 2},
        {ST_I32, "I32", 4}, {ST_U32, "U32", 4}, {ST_F32, "F32", 4}, {ST_C64, "C64", 8},
        {ST_F64, "F64", 8}, {ST_I64, "I64", 8}, {ST_U64, "U64", 8}, {ST_F4, "F4", 0},
        {ST_F6_E2M3, "F6_E2M3", 0}, {ST_F6_E3M2, "F6_E3M2", 0},
    };
    size_t i;
    for (i = 0; i < sizeof d / sizeof *d; i++) {
        CHECK(st_dtype_size(d[i].dtype) == d[i].size, "%s", d[i].name);
        CHECK(!strcmp(st_dtype_name(d[i].dtype), d[i].name), "%s", d[i].name);
        CHECK(st_dtype_from_name(d[i].name) == d[i].dtype, "%s", d[i].name);
    }
    CHECK(!st_dtype_name(ST_OPAQUE) && !st_dtype_name(99) && !st_dtype_size(-1), "none");
    CHECK(st_dtype_from_name("f16") == ST_OPAQUE && st_dtype_from_name(NULL) == ST_OPAQUE, "none");
}

/* What a message shows of a hostile name. */
static void test_shown_names(void)
{
    char json[1000] = "{\"";
    st_doc doc;
    st_error err;
    parse(J("{\"\x1b\":1}"), 0, NULL, &doc, &err);
    CHECK(!strchr(err.text, 0x1b), "a raw escape");
    parse(J("{\"\xc2\x9b[2J\xe2\x80\xae\x7f\":1}"), 0, NULL, &doc, &err);
    CHECK(strstr(err.text, "tensor \"\\xC2\\x9B[2J\\xE2\\x80\\xAE\\x7F\":"), "%s", err.text);
    memset(json + 2, 'n', 900);
    strcpy(json + 902, "\":1}");
    parse(json, strlen(json), 0, NULL, &doc, &err);
    CHECK(strstr(err.text, "nnn...\": expected an object"), "%s", err.text);
}

/* The header changes between the two passes, as it can in a shared map: never out of bounds. */
typedef struct change {
    char *at;
    char to;
} change;

static void change_now(void *arg)
{
    change *c = arg;
    *c->at = c->to;
}

static void test_changing_map(void)
{
    static const char json[] = "{\"__metadata__\":{\"k\":\"v\"},\"t\\u0041\":{\"dtype\":\"F99\","
        "\"shape\":[1,2],\"data_offsets\":[0,2]}," E("u", "0", "0") "}";
    static const char to[] = "\"\\{}[],:0129kU \xc3";
    st_limits l = {0, 0, 0, ST_ALLOW_OPAQUE, 0};
    char *copy = malloc(sizeof json - 1);
    size_t i, k;
    int same = 0, other = 0;
    if (!copy)
        return;
    for (i = 0; i < sizeof json - 1; i++)
        for (k = 0; k < sizeof to; k++) {
            change c = {copy + i, to[k]};
            check_heap heap = {0, 0, 0, change_now, &c};
            st_alloc hooks = check_hooks(&heap);
            st_doc doc;
            memcpy(copy, json, sizeof json - 1);
            if (st_parse(&doc, copy, sizeof json - 1, 8 + sizeof json - 1 + 2, &l, &hooks, NULL))
                other++;
            else
                same++;
            st_free(&doc);
            CHECK(!heap.alive, "leak");
        }
    CHECK(same && other, "%d %d", same, other);
    free(copy);
}

/* The same, and the second pass finds more than the first one made room for. */
typedef struct swap {
    char *at;
    const char *to;
} swap;

static void swap_now(void *arg)
{
    swap *s = arg;
    memset(s->at, ' ', 256);
    memcpy(s->at, s->to, strlen(s->to));
}

static void test_growing_map(void)
{
    static const struct { const char *now, *then; int code; } r[] = {
        {"{" E("t", "0", "0") "}", "{" E("t", "0", "0") "}", ST_OK},
        {"{" E("a", "0", "0") "}", "{" E("a", "0", "0") "," E("b", "0", "0") "}", ST_EIO},
        {"{\"a_long_name_that_leaves_a_room\":{" U8("[0,0]", "0", "0") "}}",
         "{" E("a", "0", "0") "," E("b", "0", "0") "}", ST_EIO},
        {"{\"t\":{" U8("[0]", "0", "0") "}}", "{\"t\":{" U8("[0,0,0,0,0,0]", "0", "0") "}}",
         ST_EIO},
        {"{\"__metadata__\":{\"abcdefgh\":\"\"}}", "{\"__metadata__\":{\"a\":\"\",\"b\":\"\"}}",
         ST_EIO},
        {"{\"__metadata__\":{\"\\u0061\":\"\"}}", "{\"__metadata__\":{\"abcdef\":\"\"}}", ST_EIO},
        {"{\"__metadata__\":{\"\\u00e9\":\"\"}}", "{\"__metadata__\":{\"abc\":\"\"   }}", ST_EIO},
        {"{" E("a", "0", "0") "," E("b", "0", "0") "}", "{" E("a", "0", "0") "}", ST_OK},
    };
    char buf[256];
    size_t i;
    for (i = 0; i < sizeof r / sizeof *r; i++) {
        swap s = {buf, r[i].then};
        check_heap heap = {0, 0, 0, swap_now, &s};
        st_alloc hooks = check_hooks(&heap);
        st_doc doc;
        st_error err = {0, ""};
        int rc;
        memset(buf, ' ', sizeof buf);
        memcpy(buf, r[i].now, strlen(r[i].now));
        rc = st_parse(&doc, buf, sizeof buf, 8 + sizeof buf, NULL, &hooks, &err);
        CHECK(rc == r[i].code, "row %d: %d %s", (int)i, rc, err.text);
        CHECK(rc != ST_EIO || strstr(err.text, "changed while"), "%s", err.text);
        st_free(&doc);
        CHECK(!heap.alive, "leak");
    }
}

int main(void)
{
    test_rows();
    test_good();
    test_values();
    test_numbers();
    test_utf8();
    test_length_word();
    test_limits();
    test_dtypes();
    test_shown_names();
    test_changing_map();
    test_growing_map();
    return check_report();
}
