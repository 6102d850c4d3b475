package com.atguigu.yygh.hosp;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Hospital;
import java.util.List;
import org.springframework.stereotype.Repository;

/** The hospitals of a city that does not exist. */
@Repository
class Hospitals {

    private static final List<Hospital> HOSPITALS = List.of(
            hospital("1001", "海棠市第一人民医院", "1", "东湖区湖滨路 1 号",
                    "始建于 1952 年，集医疗、教学、科研于一体的综合医院，开放床位 2100 张。", "08:00"),
            hospital("1002", "海棠大学附属医院", "1", "高新区学府路 88 号",
                    "大学直属附属医院，心血管内科与神经外科为重点专科。", "07:30"),
            hospital("1003", "海棠市中医医院", "1", "西山区杏林街 16 号",
                    "以中医为特色、中西医并重，设名医馆与治未病中心。", "08:30"),
            hospital("1004", "仁和儿童医院", "2", "南港区朝阳路 203 号",
                    "儿童专科医院，夜间门诊全年无休。", "08:00"),
            hospital("1005", "海棠市妇幼保健院", "2", "东湖区月季路 9 号",
                    "妇女儿童健康服务基地，提供孕产一站式服务。", "08:00"),
            hospital("1006", "北原区社区中心医院", "3", "北原区幸福里 5 号",
                    "家门口的医院，慢病随访与康复护理。", "09:00"));

    private static final List<Department> DEPARTMENTS = List.of(
            department("nk01", "心血管内科", "内科", "高血压、冠心病、心律失常"),
            department("nk02", "呼吸内科", "内科", "哮喘、慢阻肺、肺部感染"),
            department("wk01", "骨科", "外科", "关节、脊柱、运动损伤"),
            department("wk02", "神经外科", "外科", "颅脑外伤、脑血管病"),
            department("ek01", "儿科", "儿科", "儿童常见病与生长发育"),
            department("fc01", "产科", "妇产科", "产前检查与高危妊娠"),
            department("yk01", "眼科", "五官科", "白内障、屈光不正"),
            department("zy01", "中医科", "中医科", "针灸、推拿、体质调理"));

    List<Hospital> all() {
        return HOSPITALS;
    }

    Hospital get(String hoscode) {
        return HOSPITALS.stream()
                .filter(hospital -> hospital.hoscode().equals(hoscode))
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("医院", hoscode));
    }

    List<Department> departmentsOf(String hoscode) {
        get(hoscode);
        return DEPARTMENTS.stream()
                .map(common -> new Department(
                        hoscode, common.depcode(), common.name(), common.group(), common.intro()))
                .toList();
    }

    Department department(String hoscode, String depcode) {
        return departmentsOf(hoscode).stream()
                .filter(department -> department.depcode().equals(depcode))
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("科室", hoscode + "/" + depcode));
    }

    private static Hospital hospital(
            String hoscode, String name, String level, String address, String intro, String releaseTime) {
        return new Hospital(hoscode, name, level, null, "海棠市", address, intro, Schedules.DAYS, releaseTime);
    }

    private static Department department(String depcode, String name, String group, String intro) {
        return new Department(null, depcode, name, group, intro);
    }
}
