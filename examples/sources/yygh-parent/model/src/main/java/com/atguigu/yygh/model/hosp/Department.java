package com.atguigu.yygh.model.hosp;

/** A department that patients can book; {@code group} is the larger one that it belongs to. */
public record Department(String hoscode, String depcode, String name, String group, String intro) {
}
