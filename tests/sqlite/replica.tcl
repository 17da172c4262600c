# Publishing the databases that a test script opens, and comparing their replicas.
#
# `sqlite3` is wrapped: a connection is watched by Tcl's traces, so that the script meets SQLite's own command. After its first
# statement that leaves a table in the main database this is switched to WAL, and published, each database to a folder of its own. When a connection
# goes, everything is flushed, and once it has gone a fresh replica is compared with the file.
# Nothing of this may raise an error in the script.

rename sqlite3 real_sqlite3
set pending {}
set replicas 0
array set depth {}
# Of each published file its channel, of each other one why logos_publish refused it the last time.
array set channels {}
array set refused {}

if {$mode eq "published"} {
    real_sqlite3 loader :memory:
    loader enable_load_extension 1
    loader eval {SELECT load_extension($extension)}
    loader close
}

proc sqlite3 {args} {
    settle
    set result [uplevel 1 [list real_sqlite3 {*}$args]]
    lassign $args db path
    if {![string match -* $db] && $path ni {"" :memory:} && ![string match file:* $path] && [lsearch -glob $args -vfs*] < 0} {
        if {[dict exists [list {*}[lrange $args 2 end]] -readonly] && [dict get [lrange $args 2 end] -readonly]} { return $result }
        set path [file normalize $path]
        set ::depth($db) 0
        trace add execution ::$db {enter leave} [list watch $db $path]
        trace add command ::$db delete [list goes $path]
    }
    return $result
}

proc watch {db path call args} {
    if {[lindex $args end] eq "enter"} {
        incr ::depth($db)
    } elseif {[incr ::depth($db) -1] <= 0 && ![info exists ::channels($path)]} {
        catch {publish $db $path}
    }
}

# Refused in a transaction: then the next statement is as good.
proc publish {db path} {
    if {![file exists $path] || [file size $path] == 0} return
    set code [catch {
        if {[$db one {SELECT count(*) FROM main.sqlite_master WHERE type = 'table'}] == 0} return
        if {[$db one {PRAGMA main.journal_mode = WAL}] ne "wal"} return
    }]
    if {$::mode eq "plain"} { if {!$code} { set ::channels($path) plain }; return }
    if {$code} return
    set folder $::home/channel[incr ::replicas]
    if {[catch {$db one {SELECT logos_publish('dir:' || $folder)}} answer]} {
        set ::refused($path) $answer
    } else {
        set ::channels($path) $answer
    }
}

# The connection is still there: what it alone knows (commits not yet seen, doubts) goes out now.
proc goes {path args} {
    if {$::mode ne "published"} return
    if {![info exists ::channels($path)]} {
        if {[info exists ::refused($path)]} { record "publish [file tail $path]" "error: $::refused($path)" }
        return
    }
    catch {
        real_sqlite3 logos_flusher $path -create 0
        logos_flusher timeout 5000
        logos_flusher eval {SELECT logos_flush(10)}
    }
    catch {logos_flusher close}
    if {$path ni $::pending} { lappend ::pending $path }
}

# Databases whose connection has gone since: each is compared with a replica made from its channel alone.
proc settle {} {
    set paths $::pending
    set ::pending {}
    foreach path $paths {
        if {![file exists $path] || [file size $path] == 0} continue
        if {[catch {differences $path $::channels($path)} found]} { set found "error: $found" }
        record "replica [file tail $path]" [expr {$found eq "" ? "equal" : $found}]
    }
}

# A deleted database takes its sidecar and its channel with it.
proc forget {path} {
    set path [file normalize $path]
    unset -nocomplain ::refused($path)
    if {![info exists ::channels($path)]} return
    unset ::channels($path)
    if {$::mode eq "published"} { ::tcl::file::delete -force {*}[glob -nocomplain $path-logos*] }
}

proc differences {path url} {
    real_sqlite3 logos_primary $path -create 0
    set copy $::home/copy
    ::tcl::file::delete -force {*}[glob -nocomplain $copy*]
    real_sqlite3 logos_copy $copy
    try {
        logos_primary timeout 10000
        logos_primary eval {SELECT logos_publish($url)}
        logos_primary eval {SELECT logos_flush(20)}
        lassign [logos_primary eval {SELECT state, error, warnings FROM logos_status WHERE role = 'primary'}] state error warnings
        logos_copy eval {SELECT count(*) FROM attach_replica($url)}
        set found [unlike [contents logos_primary] [contents logos_copy]]
        if {$found ne ""} { append found " -- $state $error $warnings" }
        return $found
    } finally {
        logos_copy close
        logos_primary close
    }
}

proc unlike {primary replica} {
    set found {}
    foreach {what text} $primary {
        if {![dict exists $replica $what]} {
            lappend found "$what is not on the replica"
        } elseif {[dict get $replica $what] ne $text} {
            lappend found "$what: [string range $text 0 300] / [string range [dict get $replica $what] 0 300]"
        }
    }
    foreach what [dict keys $replica] {
        if {![dict exists $primary $what]} { lappend found "$what is on the replica only" }
    }
    join $found "; "
}

# What a reader sees: objects by their text, rows of each table in any order, the file's settings.
proc contents {db} {
    set seen {}
    foreach pragma {encoding user_version application_id} { dict set seen $pragma [$db one "PRAGMA $pragma"] }
    # Not compared as objects: what modules make themselves, statistics of ANALYZE (which stay local), and sqlite_sequence, which
    # a file keeps, empty, after its last AUTOINCREMENT table was dropped.
    $db eval {SELECT type, name, sql FROM sqlite_master
        WHERE name NOT LIKE '\_logos\_%' ESCAPE '\' AND tbl_name NOT LIKE '\_logos\_%' ESCAPE '\'
        AND name NOT LIKE 'sqlite\_stat_' ESCAPE '\' AND name <> 'sqlite_sequence'
        AND tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')} {
        dict set seen "$type $name" $sql
    }
    $db eval {SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')
        AND name <> 'sqlite_schema' AND name NOT LIKE 'sqlite\_stat_' ESCAPE '\' AND name NOT LIKE '\_logos\_%' ESCAPE '\'} {
        set rows [rows $db $name]
        if {$name ne "sqlite_sequence" || $rows ne "none"} { dict set seen "rows of $name" $rows }
    }
    return $seen
}

proc rows {db table} {
    set quoted \"[string map {\" \"\"} $table]\"
    set columns {}
    # Not the hidden columns of a virtual table, which are not content.
    $db eval {SELECT name FROM pragma_table_xinfo($table) WHERE hidden <> 1} {
        set column $quoted.\"[string map {\" \"\"} $name]\"
        lappend columns "CASE typeof($column) WHEN 'text' THEN 't' || hex($column) WHEN 'blob' THEN 'b' || hex($column) ELSE quote($column) END"
    }
    if {[catch {$db eval "SELECT [join $columns {, }] FROM $quoted NOT INDEXED" row {
        lappend found [join [lmap name $row(*) {set row($name)}] ,]
    }} error]} { return "error: $error" }
    if {![info exists found]} { return "none" }
    set found [lsort $found]
    return "[llength $found] rows, [zlib crc32 $found]: $found"
}
