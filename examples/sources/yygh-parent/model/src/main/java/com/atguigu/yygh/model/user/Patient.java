package com.atguigu.yygh.model.user;

/** Somebody who is booked for. */
public record Patient(long id, long userId, String name, String phone, String relation, boolean insured) {
}
