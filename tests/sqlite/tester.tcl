# A stand-in for the tester that SQLite's test scripts source, for a stock tclsh: runs one script and writes each case's result.
#
#   tclsh tester.tcl plain|published SCRIPT RESULTS [EXTENSION HOME]
#
# A case's line is its name, a tab, "ok" when the result is the one that the script expects, a tab, and the result. What only
# SQLite's own test program has (a command, a variable) makes a case "skipped". Each command of the script is
# evaluated by itself, so that such a one ends nothing else.
# Both ways switch a database to WAL once it has a table; `published` also publishes it then, and compares a fresh replica with it whenever a
# connection to it goes (replica.tcl).

package require sqlite3
lassign $argv mode script results extension home
set testdir [file dirname [file normalize $script]]
set argv0 $script
set argv {}
set results [open $results w]
fconfigure $results -encoding utf-8
source [file join [file dirname [file normalize [info script]]] replica.tcl]

# ---- what is written

proc record {name result {judged ""}} {
    set length [string length $result]
    if {$length > 20000} {
        set result "[string range $result 0 19999]... $length characters, [zlib crc32 [encoding convertto utf-8 $result]]"
    }
    foreach text [list $name $judged $result] { lappend line [string map {\\ \\\\ \n \\n \r \\r \t \\t \0 \\0} $text] }
    puts $::results [join $line \t]
    flush $::results
}

# Errors of Tcl, not of SQLite: a command, a variable, a form of a command that this tclsh does not have.
proc is_missing {error} {
    regexp {^(invalid command name|can't read "|wrong # args|unknown option|bad option|no such variable|couldn't (execute|open)|package )} $error
}

proc as_expected {result expected} {
    if {[regexp {^~/(.*)/$} $expected -> pattern]} { return [expr {![matches $result $pattern]}] }
    if {[regexp {^/(.*)/$} $expected -> pattern]} { return [matches $result $pattern] }
    if {[regexp {^~(\*.*\*)$} $expected -> pattern]} { return [expr {![string match $pattern $result]}] }
    if {[regexp {^\*.*\*$} $expected]} { return [string match $expected $result] }
    expr {$result eq $expected}
}

proc matches {result pattern} {
    if {[string index $pattern 0] eq "*"} { return [string match $pattern $result] }
    regexp [string map {# {[-0-9.]+}} $pattern] $result
}

# ---- the procedures that scripts call

proc fix_testname {variable} {
    upvar $variable name
    if {[info exists ::testprefix] && [string is digit [string index $name 0]]} { set name $::testprefix-$name }
}

proc do_test {name command expected} {
    fix_testname name
    if {[catch {uplevel #0 $command\n} result]} {
        record $name [expr {[is_missing $result] ? "skipped" : "error: $result"}]
    } else {
        record $name $result [expr {[as_expected $result $expected] ? "ok" : ""}]
    }
    settle
}

proc do_execsql_test {args} {
    set db db
    if {[lindex $args 0] eq "-db"} { set args [lassign $args - db] }
    lassign $args name sql expected
    fix_testname name
    uplevel 1 [list do_test $name "execsql {$sql} $db" [list {*}$expected]]
}

proc do_catchsql_test {name sql expected} {
    fix_testname name
    uplevel 1 [list do_test $name "catchsql {$sql}" $expected]
}

# The plan itself is the result, whatever the script expects: both ways must have the same.
proc do_eqp_test {name sql expected} {
    fix_testname name
    uplevel 1 [list do_test $name [list query_plan $sql] {}]
}

proc query_plan {sql} {
    set plan {}
    db eval "EXPLAIN QUERY PLAN $sql" step { lappend plan $step(detail) }
    regsub -all {0x[A-F0-9]+|\d+} $plan N
}

proc do_select_tests {prefix args} {
    array set switch {-errorformat "" -query "" -tclquery "" -repair ""}
    set counts 0
    foreach {name value} [lrange $args 0 end-1] {
        set full [lsearch -inline -glob {-errorformat -query -tclquery -repair -count} $name*]
        if {$full eq "-count"} { set counts 1; break }
        set switch($full) $value
    }
    if {$switch(-query) ne ""} { set switch(-tclquery) [list execsql $switch(-query)] }
    eval $switch(-repair)
    foreach {number sql expected} [lindex $args end] {
        set name $prefix.$number
        if {$switch(-tclquery) ne ""} {
            execsql $sql
            uplevel 1 [list do_test $name $switch(-tclquery) [list {*}$expected]]
        } elseif {$counts} {
            uplevel 1 [list do_test $name [list count_rows $sql] $expected]
        } elseif {$switch(-errorformat) ne ""} {
            set message [string trim [format $switch(-errorformat) {*}$expected]]
            uplevel 1 [list do_catchsql_test $name $sql [list 1 $message]]
        } else {
            uplevel 1 [list do_execsql_test $name $sql $expected]
        }
        eval $switch(-repair)
    }
}

proc count_rows {sql} {
    set rows 0
    db eval $sql { incr rows }
    return $rows
}

proc do_timed_execsql_test {args} { uplevel 1 [list do_execsql_test {*}$args] }
proc do_realnum_test {args} { uplevel 1 [list do_test {*}$args] }
proc do_filepath_test {args} { uplevel 1 [list do_test {*}$args] }
proc filepath_normalize {path} { return $path }
proc realnum_normalize {result} { return $result }
proc normalize_list {list} { return [list {*}$list] }

proc execsql {sql {db db}} { uplevel 1 [list $db eval $sql] }
proc catchsql {sql {db db}} { list [catch {uplevel 1 [list $db eval $sql]} result] $result }
proc execsql2 {sql} {
    set result {}
    db eval $sql row { foreach column $row(*) { lappend result $column $row($column) } }
    return $result
}
proc memdbsql {sql} {
    real_sqlite3 memdb :memory:
    set result [memdb eval $sql]
    memdb close
    return $result
}
proc integrity_check {name {db db}} { do_test $name [list execsql {PRAGMA integrity_check} $db] ok }

# ---- what this SQLite can do: everything that is not named here

set absent {
    api_armor atomicwrite builtin_test casesensitivelike crashtest cursorhints debug default_autovacuum default_ckptfullfsync
    direct_read enable_pragma fast_secure_delete fts1 fts2 geopoly has_codec hiddencolumns icu icu_collations lock_proxy_pragmas lookaside
    malloc_usable_size mem3 mem5 memdebug memorymanage multiplex_ext_overwrite mutex_noop normalize null_trim offset_sql_func
    oversize_cell_check pagecache_overflow_stats prefer_proxy_locking rbu rowid32 rtree_int_only scanstatus session shared_cache snapshot
    sqllog stat4 uri_00_error userauth win32malloc yytrackmaxstackdepth 8_3_names configslower
}
array set sqlite_options {configslower 1.0 threadsafe 1 threadsafe1 1 threadsafe2 0}
foreach name {fts3 wal utf16 integrityck} { set sqlite_options($name) 1 }
foreach name $absent { if {![info exists sqlite_options($name)]} { set sqlite_options($name) 0 } }

proc capable {expression} {
    foreach name [regexp -all -inline {[a-z0-9_]+} $expression] {
        if {![info exists ::sqlite_options($name)]} { set ::sqlite_options($name) 1 }
    }
    expr [regsub -all {[a-z0-9_]+} $expression {$::sqlite_options(&)}]
}
proc ifcapable {expression code {else ""} {other ""}} {
    set code [catch {uplevel 1 [expr {[capable $expression] ? $code : $other}]} result options]
    return -code $code $result
}
proc wal_is_capable {} { return 1 }
proc wal_is_wal_mode {} { return 0 }
proc wal_set_journal_mode {args} {}
proc wal_check_journal_mode {args} {}
proc permutation {} {}
proc presql {} {}
proc isquick {} { return 1 }

# Counters of SQLite's own test program stand still, numbers that it knows are SQLite's defaults.
foreach name {
    sqlite_search_count sqlite_sort_count sqlite_like_count sqlite_found_count sqlite_interrupt_count sqlite_open_file_count
    sqlite3_xferopt_count sqlite_current_time sqlite_sync_count sqlite_fullsync_count sqlite3_max_blobsize sqlite_query_plan
    sqlite_fts3_enable_parentheses sqlite_opentemp_count sqlite_io_error_pending sqlite_io_error_hit sqlite_io_error_persist
    sqlite_io_error_hardhit sqlite_diskfull_pending sqlite_diskfull sqlite3_get_table_printf AUTOVACUUM
} { set $name 0 }
array set TC {errors 0 count 0}
array set cmdlinearg [list TESTFIXTURE_HOME [pwd] soak 0 match "" file-retries 0 file-retry-delay 0]
set tcl_precision 15
set bitmask_size 64
set sqlite_pending_byte 0x40000000
set TEMP_STORE 1
foreach {name value} {
    LENGTH 1000000000 COLUMN 2000 SQL_LENGTH 1000000000 EXPR_DEPTH 1000 COMPOUND_SELECT 500 VDBE_OP 250000000 FUNCTION_ARG 127
    ATTACHED 10 LIKE_PATTERN_LENGTH 50000 VARIABLE_NUMBER 250000 PAGE_SIZE 65536 PAGE_COUNT 1073741823 TRIGGER_DEPTH 1000
} { set SQLITE_MAX_$name $value }
set SQLITE_DEFAULT_PAGE_SIZE 4096
set SQLITE_DEFAULT_CACHE_SIZE -2000

# Commands of SQLite's own test program that a connection of tclsh can answer, or that only tune or watch.
proc sqlite3_connection_pointer {db} { return $db }
proc sqlite3_db_config {db option value} { $db config [string tolower [regsub {^SQLITE_DBCONFIG_} $option {}]] $value }
proc sqlite3_changes {db} { $db changes }
proc sqlite3_total_changes {db} { $db total_changes }
proc sqlite3_last_insert_rowid {db} { $db last_insert_rowid }
proc sqlite3_exec {db sql} {
    if {[catch {$db eval $sql row { if {![info exists names]} { set names $row(*) }; foreach name $row(*) { lappend values $row($name) } }} error]} {
        return [list [$db errorcode] $error]
    }
    expr {[info exists names] ? [list 0 [concat $names $values]] : {0 {}}}
}
foreach name {
    sqlite3_extended_result_codes sqlite3_db_config_lookaside sqlite3_soft_heap_limit sqlite3_soft_heap_limit64 sqlite3_memdebug_settitle
    sqlite3_release_memory db_release_memory database_never_corrupt database_may_be_corrupt extra_schema_checks do_not_use_codec
    speed_trial_init speed_trial_summary optimization_control sqlite3_config_memstatus show_memstats
} { proc $name {args} { return 0 } }
proc nonzero_reserved_bytes {} { return 0 }
proc hexio_read {path offset amount} {
    set file [open $path rb]
    seek $file $offset
    set bytes [read $file $amount]
    close $file
    string toupper [binary encode hex $bytes]
}
proc md5 {text} { format %08x%08x [zlib crc32 [encoding convertto utf-8 $text]] [string length $text] }
proc omit_test {args} {}
proc set_test_counter {name args} { return 0 }
proc test_find_cli {} { return -code return }
proc test_find_sqldiff {} { return -code return }
proc test_cli_invocation {} { return -code return }
proc get_pwd {} { pwd }

# Faults are injected by SQLite's own test program only: no case of these is run.
proc leave_out_faults {} {
    foreach name {do_faultsim_test do_one_faultsim_test do_malloc_test do_ioerr_test do_ioerr_test_list crashsql crash_on_write run_thread_tests} {
        proc $name {args} { error "invalid command name: needs injected faults" }
    }
}

# ---- files

# What is deleted has been compared before.
namespace ensemble configure file -map [dict replace [namespace ensemble configure file -map] delete ::delete_files]
proc delete_files {args} {
    settle_before_change $args
    foreach path $args { forget $path }
    uplevel 1 [list ::tcl::file::delete {*}$args]
}
proc forcedelete {args} { foreach path $args { file delete -force -- $path } }
proc delete_file {args} { foreach path $args { file delete -- $path } }
proc copy_file {from to} { file copy -- $from $to }
proc forcecopy {from to} {
    forcedelete $to
    file copy -force -- $from $to
}
proc is_relative_file {path} { expr {[file pathtype $path] ne "absolute"} }
proc test_pwd {args} { pwd }

proc reset_db {} {
    catch {db close}
    forcedelete test.db test.db-journal test.db-wal
    sqlite3 db ./test.db
    set ::DB db
    if {[info exists ::SETUP_SQL]} { db eval $::SETUP_SQL }
}
proc own_files {pattern} { lsearch -all -inline -not -glob [real_glob -nocomplain $pattern] *-logos* }
proc db_save {} {
    forcedelete {*}[own_files sv_test.db*]
    foreach path [own_files test.db*] { forcecopy $path sv_$path }
}
proc db_save_and_close {} {
    db_save
    catch {db close}
    return ""
}
proc db_restore {} {
    forcedelete {*}[own_files test.db*]
    foreach path [own_files sv_test.db*] { forcecopy $path [string range $path 3 end] }
}
proc db_restore_and_reopen {{path test.db}} {
    catch {db close}
    db_restore
    sqlite3 db $path
}
proc db_delete_and_reopen {{path test.db}} {
    catch {db close}
    forcedelete {*}[own_files test.db*]
    sqlite3 db $path
}

proc drop_all_tables {{db db}} {
    set keys [$db one {PRAGMA foreign_keys}]
    $db eval {PRAGMA foreign_keys = OFF}
    foreach {number name file} [$db eval {PRAGMA database_list}] {
        set schema [expr {$number == 1 ? "sqlite_temp_master" : "$name.sqlite_master"}]
        foreach {table type} [$db eval "SELECT name, type FROM $schema WHERE type IN ('table', 'view')
            AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_logos\\_%' ESCAPE '\\'"] {
            $db eval "DROP $type \"$table\""
        }
    }
    $db eval "PRAGMA foreign_keys = $keys"
}
proc drop_all_indexes {{db db}} {
    foreach name [$db eval {SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE 'create%'}] { $db eval "DROP INDEX $name" }
}

# Names and rows of a schema, without what is ours.
proc dbcksum {db schema} {
    set names [expr {$schema eq "temp" ? "sqlite_temp_master" : "$schema.sqlite_master"}]
    set text [$db eval "SELECT type, name, sql FROM $names WHERE name NOT LIKE '\\_logos\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_logos\\_%' ESCAPE '\\' ORDER BY name"]
    foreach table [$db eval "SELECT name FROM $names WHERE type = 'table' AND name NOT LIKE '\\_logos\\_%' ESCAPE '\\' ORDER BY name"] {
        append text \n [$db eval "SELECT * FROM $schema.\"$table\""]
    }
    md5 $text
}
proc cksum {{db db}} { dbcksum $db main }
proc allcksum {{db db}} { return [dbcksum $db main][dbcksum $db temp] }

# ---- the script

rename source real_source
proc source {path} {
    switch -glob [file tail $path] {
        tester.tcl - thread_common.tcl { return }
        malloc_common.tcl { set ::sqlite_options(builtin_test) 1 }
    }
    set code [catch {uplevel 1 [list real_source $path]} result]
    set ::sqlite_options(builtin_test) 0
    leave_out_faults
    if {[file tail $path] eq "lock_common.tcl"} { children_have_sqlite }
    return -code $code $result
}

# Other processes of a script are stock tclshs: writers that know nothing of us.
proc children_have_sqlite {} {
    rename write_main_loop write_bare_main_loop
    proc write_main_loop {} {
        write_bare_main_loop
        set file [open tf_main.tcl]
        set text [read $file]
        close $file
        set file [open tf_main.tcl w]
        puts $file "package require sqlite3\n$text"
        close $file
    }
}

proc finish_test {} {
    foreach db {db db1 db2 db3} { catch {$db close} }
    settle
    record finished ok
    close $::results
    exit 0
}

proc run_script {path} {
    set file [open $path]
    fconfigure $file -encoding utf-8
    set number 0
    set command ""
    while {[gets $file line] >= 0} {
        incr number
        if {$command eq ""} { set first $number }
        if {$command eq "" && [regexp {^\s*(#|$)} $line] && ![string match {*\\} $line]} continue
        append command $line \n
        if {[string match {*\\} $line] || ![info complete $command]} continue
        set code [catch {uplevel #0 $command} result]
        if {$code == 2} break
        if {$code == 1} { record "line $first" [expr {[is_missing $result] ? "skipped" : "error: $result"}] }
        set command ""
    }
    close $file
}

leave_out_faults
real_source [file join $testdir malloc_common.tcl]
set sqlite_options(builtin_test) 1
real_source [file join $testdir malloc_common.tcl]
set sqlite_options(builtin_test) 0
leave_out_faults
reset_db
run_script $script
finish_test
