"""What stands before an opening parenthesis: keywords and builtin functions, by what a call of them means.

Source: MySQL 8.4 and 9.x reference manual, "Function and Operator Reference" and "Function Name Parsing and
Resolution"; MariaDB knowledge base, "Built-in Functions"; OceanBase V4 reference, "Functions" (MySQL mode).

A name that no list here has may be a stored or a loaded function, and may do anything. A builtin function of a newer
server may hide a stored function of the same name on an older one; who writes such a substitute copies the builtin.
"""

from __future__ import annotations

from typing import Final


def _names(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# They stand before parentheses and call nothing. All are keywords, which no unquoted function can be called.
_KEYWORDS: Final = _names("""
    all and any as between binary by case char columns decimal distinct distinctrow div double else except exists float
    from group having in index intersect interval join key lateral like limit not numeric on or over partition real
    regexp rlike row select some straight_join then union using values varbinary varchar when where xor
""")

# Without the sql_mode IGNORE_SPACE, a blank behind these names makes a stored function of them.
_UNSPACED: Final = _names("""
    adddate bit_and bit_or bit_xor cast count curdate curtime date_add date_sub extract group_concat json_arrayagg
    json_objectagg max mid min now position session_user st_collect std stddev stddev_pop stddev_samp subdate substr
    substring sum sysdate system_user trim var_pop var_samp variance
""")

_FUNCTIONS: Final = _names("""
    abs acos addtime aes_decrypt aes_encrypt any_value approx_count_distinct ascii asin atan atan2 avg
    benchmark bin bin_to_uuid bit_count bit_length
    ceil ceiling char_length character_length charset chr coalesce coercibility collation compress concat
    concat_ws conv convert convert_tz cos cot crc32 crc32c cume_dist current_date current_role current_time
    current_timestamp current_user
    database date date_format datediff datetime day dayname dayofmonth dayofweek dayofyear decode decode_oracle default
    degrees dense_rank des_decrypt des_encrypt
    elt encode encrypt exp export_set extractvalue
    field find_in_set first_value floor format format_bytes format_pico_time from_base64 from_days from_unixtime
    get_format greatest grouping gtid_subset gtid_subtract
    hex hour
    icu_version if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr interval is_ipv4 is_ipv4_compat
    is_ipv4_mapped is_ipv6 is_uuid isnull
    json_array json_array_append json_array_insert json_array_intersect json_compact json_contains json_contains_path
    json_depth json_detailed json_equals json_exists json_extract json_insert json_key_value json_keys json_length
    json_loose json_merge json_merge_patch json_merge_preserve json_normalize json_object json_object_filter_keys
    json_object_to_array json_overlaps json_pretty json_query json_quote json_remove json_replace json_schema_valid
    json_schema_validation_report json_search json_set json_storage_free json_storage_size json_table json_type
    json_unquote json_valid json_value
    lag last_day last_value lcase lead least left length lengthb ln localtime localtimestamp locate log log10 log2
    lower lpad ltrim
    make_set makedate maketime match md5 median microsecond minute mod month monthname
    name_const natural_sort_key nchar nth_value ntile nullif nvl nvl2
    oct octet_length old_password ord
    password percent_rank percentile_cont percentile_disc period_add period_diff pi pow power
    quarter quote
    radians rand random_bytes rank regexp_count regexp_instr regexp_like regexp_replace regexp_substr repeat replace
    reverse right round row_number rpad rtrim
    schema sec_to_time second sformat sha sha1 sha2 sign sin sleep soundex space sqrt statement_digest
    statement_digest_text str_to_date strcmp substr_oracle substring_index subtime
    tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_base64 to_char to_date to_days
    to_number to_seconds trim_oracle trunc truncate
    ucase uncompress uncompressed_length unhex unix_timestamp updatexml upper user utc_date utc_time
    utc_timestamp uuid uuid_short uuid_to_bin uuid_v4 uuid_v7
    validate_password_strength value version
    week weekday weekofyear weight_string wm_concat
    year yearweek

    column_check column_create column_exists column_get column_json column_list
    cosine_distance from_vector inner_product l1_distance l2_distance negative_inner_product string_to_vector
    to_vector vec_distance vec_distance_cosine vec_distance_euclidean vec_fromtext vec_totext vector_dim
    vector_distance vector_to_string

    geomcollfromtext geomcollfromwkb geometrycollection geometrycollectionfromtext geometryfromtext geometryfromwkb
    geomfromtext geomfromwkb linefromtext linefromwkb linestring linestringfromtext mbrcontains mbrcoveredby mbrcovers
    mbrdisjoint mbrequal mbrequals mbrintersects mbroverlaps mbrtouches mbrwithin mlinefromtext mpointfromtext
    mpolyfromtext multilinestring multipoint multipolygon point pointfromtext pointfromwkb polyfromtext polyfromwkb
    polygon polygonfromtext
    st_area st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_boundary st_buffer st_buffer_strategy st_centroid
    st_contains st_convexhull st_coveredby st_covers st_crosses st_difference st_dimension st_disjoint st_distance
    st_distance_sphere st_dwithin st_endpoint st_envelope st_equals st_exteriorring st_frechetdistance st_geohash
    st_geomcollfromtext st_geomcollfromtxt st_geomcollfromwkb st_geometrycollectionfromtext st_geometryfromtext
    st_geometryfromwkb st_geometryn st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb
    st_hausdorffdistance st_interiorringn st_intersection st_intersects st_isclosed st_isempty st_isring st_issimple
    st_isvalid st_latfromgeohash st_latitude st_length st_linefromtext st_linefromwkb st_lineinterpolatepoint
    st_lineinterpolatepoints st_linestringfromtext st_linestringfromwkb st_longfromgeohash st_longitude st_makeenvelope
    st_mlinefromtext st_mlinefromwkb st_mpointfromtext st_mpointfromwkb st_mpolyfromtext st_mpolyfromwkb
    st_multilinestringfromtext st_multipointfromtext st_multipolygonfromtext st_numgeometries st_numinteriorring
    st_numinteriorrings st_numpoints st_overlaps st_pointatdistance st_pointfromgeohash st_pointfromtext
    st_pointfromwkb st_pointn st_pointonsurface st_polyfromtext st_polyfromwkb st_polygonfromtext st_polygonfromwkb
    st_relate st_simplify st_srid st_startpoint st_swapxy st_symdifference st_touches st_transform st_union
    st_validate st_within st_x st_y
""")

# An operator or a bracket: what follows is an expression in parentheses. Not `.`: a qualified call.
SYMBOLS: Final = _names(", = < > + - * / % & | ^ ~ ! ( {")

# Before "(", with a blank behind a word if there is one. The empty one stands for what `CALLED` need not tell.
HARMLESS: Final = frozenset(
    {b"", *SYMBOLS, *_UNSPACED, *(w + blank for w in _KEYWORDS | _FUNCTIONS for blank in (b"", b" "))}
)

# They change nothing that replicas would not have, but tell of the session's server session, hold a lock in it, wait
# for what only a replica knows or read a file of the machine.
OF_THE_SESSION: Final = _names("""
    connection_id get_lock host_ip is_free_lock is_used_lock last_insert_id load_file master_gtid_wait
    master_pos_wait mysql_port ps_current_thread_id ps_thread_id release_all_locks release_lock rpc_port
    source_pos_wait wait_for_executed_gtid_set wait_until_sql_thread_after_gtids
""")

# They tell of the statement before.
OF_THE_LAST: Final = _names("found_rows last_execution_id last_trace_id row_count")
