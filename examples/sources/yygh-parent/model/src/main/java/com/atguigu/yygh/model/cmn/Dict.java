package com.atguigu.yygh.model.cmn;

/** An entry of the data dictionary: {@code value} is its code, {@code name} what people read. */
public record Dict(long id, String dictCode, String value, String name) {
}
