/* SPDX-License-Identifier: MIT */
/* lib/io/pickle.c and pickle_torch.c: gadgets that run code elsewhere, machines that are asked for
 * too much, and tensors that reach where they must not. */
#include "torch_build.h"

static int try_pickle(const bytes *pickle)
{
    static zip_file z;
    torch_make(&z, pickle, "12345678", 8);
    return torch_try(z.b.at, z.b.n);
}

/* Each would touch the file "owned" if anything were called.  All of them are refused, whether they
 * are the root, sit beside a tensor, or hide in arguments and states. */
static const struct {
    const char *what, *code;
} gadgets[] = {
    {"os.system", "cos\nsystem\n(X\5\1\1\1touchtR"},
    {"posix.system", "cposix\nsystem\n(tR"},
    {"nt.system", "cnt\nsystem\n(tR"},
    {"os.popen", "cos\npopen\n(tR"},
    {"os.path below os", "cos.path\nexists\n(tR"},
    {"subprocess.Popen", "csubprocess\nPopen\n(tR"},
    {"subprocess.check_output", "csubprocess\ncheck_output\n(tR"},
    {"eval, Python 3", "cbuiltins\neval\n(tR"},
    {"eval, Python 2", "c__builtin__\neval\n(tR"},
    {"exec", "cbuiltins\nexec\n(tR"},
    {"compile", "cbuiltins\ncompile\n(tR"},
    {"__import__", "c__builtin__\n__import__\n(tR"},
    {"open", "cbuiltins\nopen\n(tR"},
    {"execfile", "c__builtin__\nexecfile\n(tR"},
    {"runpy", "crunpy\n_run_code\n(tR"},
    {"pkgutil.resolve_name", "cpkgutil\nresolve_name\n(tR"},
    {"importlib", "cimportlib\nimport_module\n(tR"},
    {"sys.modules", "csys\nmodules\n"},
    {"ctypes", "cctypes\nCDLL\n(tR"},
    {"operator.attrgetter", "coperator\nattrgetter\n(tR"},
    {"types.FunctionType", "ctypes\nFunctionType\n(tR"},
    {"marshal.loads", "cmarshal\nloads\n(tR"},
    {"pickle in pickle", "cpickle\nloads\n(tR"},
    {"socket", "csocket\ncreate_connection\n(tR"},
    {"shutil.rmtree", "cshutil\nrmtree\n(tR"},
    {"webbrowser", "cwebbrowser\nopen\n(tR"},
    {"timeit", "ctimeit\ntimeit\n(tR"},
    {"pdb", "cpdb\nrun\n(tR"},
    {"numpy.testing", "cnumpy.testing._private.utils\nrunstring\n(tR"},
    {"torch.hub", "ctorch.hub\nload\n(tR"},
    {"torch.utils.collect_env", "ctorch.utils.collect_env\nrun\n(tR"},
    {"asyncio", "casyncio.unix_events\n_UnixSubprocessTransport._start\n(tR"},
    {"by stack", "\214\2os\214\6system\223)R"},
    {"as an object", "cos\nsystem\n)\201"},
    {"in a tuple", "(cos\nsystem\n(tRt"},
    {"as another's state", "cfoo\nBar\n)\201cos\nsystem\n(tRb"},
    {"as another's argument", "cfoo\nBar\n(cos\nsystem\n(tRtR"},
    {"INST", "(ios\nsystem\n"},
    {"OBJ", "(cfoo\nBar\no"},
    {"EXT1", "\202\1"},
    {"EXT2", "\203\1\1"},
    {"EXT4", "\204\1\1\1\1"},
    {"PERSID as text", "Pfoo\n"},
    {"a text number", "I1\n"},
    {"POP", "N0"},
    {"DUP", "N2"},
    {"LONG4", "\213\1\1\1\1"},
    {"NEXT_BUFFER", "\227"},
};

static void refuses_gadgets(void **state)
{
    static bytes p;
    for (size_t i = 0; i < sizeof gadgets / sizeof *gadgets; i++) {
        p.n = 0; /* as the root */
        ops(&p, "\200\2");
        ops(&p, gadgets[i].code);
        ops(&p, ".");
        if (try_pickle(&p) == 0)
            fail_msg("accepted as the root: %s", gadgets[i].what);
        p.n = 0; /* beside a tensor */
        ops(&p, "\200\2}(");
        text(&p, "w");
        tensor(&p, "FloatStorage", "0", 2, 0, 1, (const int64_t[]){2}, (const int64_t[]){1});
        text(&p, "x");
        ops(&p, gadgets[i].code);
        ops(&p, "u.");
        if (try_pickle(&p) == 0)
            fail_msg("accepted beside a tensor: %s", gadgets[i].what);
    }
}

/* {"w": tensor, "x": code}; says how many tensors come out, or the error. */
static int beside(const char *code)
{
    static bytes p;
    static zip_file z;
    slr_torchfile *f;
    unsigned char *copy;
    int rc;
    p.n = 0;
    ops(&p, "\200\2}(");
    text(&p, "w");
    tensor(&p, "FloatStorage", "0", 2, 0, 1, (const int64_t[]){2}, (const int64_t[]){1});
    text(&p, "x");
    ops(&p, code);
    ops(&p, "u.");
    torch_make(&z, &p, "12345678", 8);
    rc = torch_open(&f, z.b.at, z.b.n, &copy);
    if (rc == 0)
        rc = (int)slr_torchfile_count(f);
    slr_torchfile_close(f);
    free(copy);
    return rc;
}

static void strangers_are_opaque(void **state)
{
    assert_int_equal(beside("N"), 1);
    assert_int_equal(beside("cfoo\nBar\n(tR"), 1);
    assert_int_equal(beside("cfoo\nBar\n)\201}b"), 1);
    assert_int_equal(beside("cfoo\nBar\n"), 1);
    assert_int_equal(beside("]\217\220"), SDLORA_EFORMAT); /* ADDITEMS without a mark */
    assert_int_equal(beside("\217(K\1K\2\220"), 1);
    assert_int_equal(beside("G\77\360\1\1\1\1\1\1"), 1);
    assert_int_equal(beside("cbuiltins\ngetattr\n(tR"), 1); /* enumerations are saved so */
}

static void broken_machines(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "N",
        "NN.",
        "(.",
        "(N.",
        "t.",
        "N(.",
        "u.",
        "(u.",
        "}(Nu.",
        "N(NNu.",
        "]a.",
        "NNa.",
        "N(Ne.",
        "e.",
        "s.",
        "Ns.",
        "NNs.",
        "NNNs.",
        "R.",
        "NNR.",
        "NR.",
        "b.",
        "Nb.",
        "Q.",
        "NQ.",
        ")Q.",
        "q\1.",
        "h\1.",
        "Nq\1h\2.",
        "(q\1.",
        "\205.",
        "N\206.",
        "NN\207.",
        "(N\205t.N",
        "cfoo\nbar",
        "cfoo",
        "X\5",
        "X\5\1\1\1abc.",
        "\223.",
        "NN\223.",
        "K\1K\1\223.",
        "\200\17N.",
        "\225\1\1\1\1\1\1\1\1N.",
        "\212\1",
        "G\1",
        "M\1",
        "J\1\1",
        "\214\5ab.",
        "B\5",
        "C\5ab.",
        "\232.",
        "\377.",
        "}K\1(Nst0",
        "\214\1a\214\1b(\223t0",
        "}}.",
        "(}.",
        "r\377\377\377\177.",
        "Nr\377\377\377\177.",
        "j\1\1\1\1.",
    };
    static bytes p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p.n = 0;
        ops(&p, bad[i]);
        if (try_pickle(&p) != SDLORA_EFORMAT)
            fail_msg("accepted: row %zu", i);
    }
}

static void every_cut_is_refused(void **state)
{
    static bytes p;
    size_t n;
    plain_pickle(&p);
    n = p.n;
    assert_int_equal(try_pickle(&p), 0);
    for (p.n = 0; p.n < n; p.n++)
        assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
}

/* No byte of a pickle may be able to do more than make it wrong. */
static void every_byte_may_be_any(void **state)
{
    static bytes p;
    static const unsigned char values[] = {0,   1,   0x7f, 0x80, 0xff, '(',
                                           ')', '}', ']',  't',  'R',  '.'};
    plain_pickle(&p);
    for (size_t i = 0; i < p.n; i++) {
        unsigned char keep = p.at[i];
        for (size_t k = 0; k < sizeof values; k++) {
            p.at[i] = values[k];
            try_pickle(&p);
        }
        p.at[i] = keep;
    }
    assert_int_equal(try_pickle(&p), 0);
}

static void limits_hold(void **state)
{
    static bytes p;
    p.n = 0; /* marks inside marks */
    for (int i = 0; i < 1000; i++)
        ops(&p, "(");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("open inside");
    p.n = 0; /* a tall stack */
    for (int i = 0; i < 200000; i++)
        ops(&p, "N");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("on the stack");
    p.n = 0; /* lists in lists in lists */
    ops(&p, "\200\2}X\1");
    add(&p, "\0\0\0a", 4);
    for (int i = 0; i < 100; i++)
        ops(&p, "]");
    for (int i = 0; i < 99; i++)
        ops(&p, "a");
    ops(&p, "s.");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("without end");
    p.n = 0; /* a list that is in itself */
    ops(&p, "}q\1X\1");
    add(&p, "\0\0\0a", 4);
    ops(&p, "h\1s.");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("without end");
    p.n = 0; /* 2^60 paths through 60 lists, each twice in the next */
    ops(&p, "}(K\1]q\1");
    for (int i = 1; i < 60; i++) {
        const char list[] = {'K', (char)(i + 1), ']', '(', 'h',          (char)i,
                             'h', (char)i,       'e', 'q', (char)(i + 1)};
        add(&p, list, sizeof list);
    }
    ops(&p, "u.");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("without end");
}

static void check_tensor(const char *class, int64_t numel, int64_t offset, int rank,
                         const int64_t *size, const int64_t *stride, int want, int line)
{
    static bytes p;
    int rc;
    p.n = 0;
    ops(&p, "\200\2}");
    text(&p, "w");
    tensor(&p, class, "0", numel, offset, rank, size, stride);
    ops(&p, "s.");
    rc = try_pickle(&p);
    if (rc != want)
        fail_msg("line %d: %d, wanted %d", line, rc, want);
    if (rc < 0 && numel >= 0 && offset >= 0)
        assert_says("w");
}

#define DIMS(...) ((const int64_t[]){__VA_ARGS__, 0})
#define TENSOR(class, numel, offset, rank, size, stride, want)                                     \
    check_tensor(class, numel, offset, rank, size, stride, want, __LINE__)

static void tensors_stay_inside(void **state)
{
    const int64_t big = INT64_MAX, half = (int64_t)1 << 62;
    TENSOR("FloatStorage", 2, 0, 1, DIMS(2), DIMS(1), 0);
    TENSOR("FloatStorage", 2, 1, 1, DIMS(1), DIMS(1), 0);
    TENSOR("FloatStorage", 2, 0, 0, DIMS(0), DIMS(0), 0);
    TENSOR("FloatStorage", 2, 2, 1, DIMS(0), DIMS(1), 0);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(1), DIMS(big), 0);
    TENSOR("FloatStorage", 2, 0, 2, DIMS(2, 2), DIMS(0, 1), 0);
    TENSOR("FloatStorage", 2, 0, 2, DIMS(1, 2), DIMS(7, 1), 0);
    TENSOR("ByteStorage", 8, 0, 3, DIMS(2, 2, 2), DIMS(1, 2, 4), 0);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(3), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 1, 1, DIMS(2), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 2, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 3, 1, DIMS(0), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, big, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, -1, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(-1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(2), DIMS(-1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(2), DIMS(2), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(2), DIMS(big), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 2, DIMS(3, 3), DIMS(half, half), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 3, DIMS(half, half, 0), DIMS(1, 1, 1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 3, DIMS(0, half, half), DIMS(1, 1, 1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 2, DIMS(0, (int64_t)1 << 50), DIMS(1, 1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS(big), DIMS(0), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 1, DIMS((int64_t)1 << 40), DIMS(0), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 2, 0, 7, DIMS(1, 1, 1, 1, 1, 1, 1), DIMS(1, 1, 1, 1, 1, 1, 1),
           SDLORA_ENOTSUP);
    /* Storages that the file has other sizes for. */
    TENSOR("FloatStorage", 3, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", 1, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", half, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", big, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("FloatStorage", -1, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("DoubleStorage", 2, 0, 1, DIMS(1), DIMS(1), SDLORA_EFORMAT);
    TENSOR("ComplexFloatStorage", 1, 0, 1, DIMS(1), DIMS(1), SDLORA_ENOTSUP);
    TENSOR("UntypedStorage", 8, 0, 1, DIMS(1), DIMS(1), SDLORA_ENOTSUP);
    TENSOR("QInt8Storage", 8, 0, 1, DIMS(1), DIMS(1), SDLORA_ENOTSUP);
}

/* Two views that repeat two elements 2^20 times each: more than the file can mean. */
static void copies_are_bounded(void **state)
{
    static bytes p;
    p.n = 0;
    ops(&p, "\200\2}(");
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        text(&p, name);
        tensor(&p, "FloatStorage", "0", 2, 0, 2, DIMS(1 << 19, 2), DIMS(0, 1));
    }
    ops(&p, "u.");
    assert_int_equal(try_pickle(&p), SDLORA_EFORMAT);
    assert_says("too often");
}

/* One key for two storages of different sizes: what one torch fell over. */
static void storages_agree_with_themselves(void **state)
{
    static bytes p;
    for (int k = 0; k < 3; k++) {
        p.n = 0;
        ops(&p, "\200\2}(");
        text(&p, "a");
        tensor(&p, "FloatStorage", "0", 2, 0, 1, DIMS(2), DIMS(1));
        text(&p, "b");
        tensor(&p, k == 1 ? "IntStorage" : "FloatStorage", "0", k == 2 ? 3 : 2, 0, 1, DIMS(1),
               DIMS(1));
        ops(&p, "u.");
        assert_int_equal(try_pickle(&p), k ? SDLORA_EFORMAT : 0);
    }
}

static void unknown_makers_of_tensors_are_named(void **state)
{
    static bytes p;
    p.n = 0;
    ops(&p, "\200\2}");
    text(&p, "w");
    ops(&p, "cfoo\nBar\n(");
    tensor(&p, "FloatStorage", "0", 2, 0, 1, DIMS(2), DIMS(1));
    ops(&p, "tRs.");
    assert_int_equal(try_pickle(&p), SDLORA_ENOTSUP);
    assert_says("foo.Bar");
    /* Outside of the state dict nobody minds. */
    p.n = 0;
    ops(&p, "\200\2}(");
    text(&p, "callbacks");
    ops(&p, "cfoo\nBar\n(");
    tensor(&p, "FloatStorage", "0", 2, 0, 1, DIMS(2), DIMS(1));
    ops(&p, "tR");
    text(&p, "state_dict");
    ops(&p, "}");
    text(&p, "w");
    tensor(&p, "FloatStorage", "0", 2, 0, 1, DIMS(2), DIMS(1));
    ops(&p, "su.");
    assert_int_equal(try_pickle(&p), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_gadgets),
        cmocka_unit_test(strangers_are_opaque),
        cmocka_unit_test(broken_machines),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_byte_may_be_any),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(tensors_stay_inside),
        cmocka_unit_test(copies_are_bounded),
        cmocka_unit_test(storages_agree_with_themselves),
        cmocka_unit_test(unknown_makers_of_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
