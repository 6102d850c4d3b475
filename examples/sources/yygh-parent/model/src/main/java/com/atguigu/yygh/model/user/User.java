package com.atguigu.yygh.model.user;

import java.time.LocalDate;

/** Somebody who books, for himself or for others. */
public record User(long id, String nickname, String phone, String status, LocalDate registered) {
}
